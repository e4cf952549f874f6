"""The method from end to end in minutes, on embedded data: no download, no settings to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from emoreg.progress import Progress
from emoreg.report import results_table, write_report
from emoreg.run import Run
from emoreg.settings import (
    AugmentSettings,
    BackboneSettings,
    OptimizerSettings,
    PretrainRecipe,
    StimuliSettings,
    TargetSettings,
    TrainingSettings,
    TrainRecipe,
)
from emoreg.study import ARMS, run_arms, summarise

# ResNet-8 and few epochs: sized for two CPU cores and four minutes. On the CPU alone, so that every machine
# runs the same arithmetic.
STAGE_1 = PretrainRecipe(
    stimuli=StimuliSettings(name="procedural", count=2000, image_size=16),
    backbone=BackboneSettings(name="resnet8"),
    augment=AugmentSettings(crop_padding=0, flip=True),  # a crop's black border would change brightness
    optimizer=OptimizerSettings(name="adamw", lr=3e-3, weight_decay=0.01, warmup=0.1),
    training=TrainingSettings(epochs=6, batch_size=64, device="cpu", precision="32-true"),
)
STAGE_2 = TrainRecipe(
    target=TargetSettings(name="digits", image_size=16),
    backbone=BackboneSettings(name="resnet8"),
    augment=AugmentSettings(crop_padding=1, flip=False),
    optimizer=OptimizerSettings(lr=0.05, warmup=0.2),
    training=TrainingSettings(epochs=8, batch_size=64, device="cpu", precision="32-true"),
)


def quickstart(out: Path, seeds: int, progress: Progress) -> Path:
    """Run all arms, print the table, write the page.

    Args:
        out: folder of the runs; those that are finished there are kept.
        seeds: runs of each arm.
        progress: where it is shown.

    Returns:
        The page.
    """
    from rich.console import Console

    runs = run_arms(STAGE_1, STAGE_2, tuple(ARMS), range(seeds), out, progress)
    summaries = summarise(runs)
    page = write_report(out / "report.html", "emoreg quickstart", summaries, _facts(runs, seeds))
    console = Console()
    console.print(results_table(summaries))
    console.print(f"page: {page.resolve()}", highlight=False, markup=False, soft_wrap=True)
    return page


def _facts(runs: Mapping[str, Sequence[Run]], seeds: int) -> dict[str, str]:
    """What ran where, for the end of the page."""
    last = next(iter(runs.values()))[-1]
    session = last.environment[-1]
    images = last.final["images"]
    return {
        "Target": f"scikit-learn's handwritten digits, {images['train']} training, {images['validation']} validation "
        f"and {images['test']} test images, 8x8 upsampled to {STAGE_2.target.image_size}x{STAGE_2.target.image_size}",
        "Stimuli": f"procedural, {STAGE_1.stimuli.count} abstract compositions, valence and arousal after published "
        "psychophysics: no person rated them",
        "Backbone and encoder": STAGE_2.backbone.name,
        "Epochs": f"{STAGE_1.training.epochs} in stage 1, {STAGE_2.training.epochs} in stage 2",
        "Seeds": str(seeds),
        "emoreg": f"{session['packages']['emoreg']}, git {session['git'] or 'unknown'}",
        "PyTorch": f"{session['packages']['torch']}, Python {session['python']}",
        "Hardware": f"{session['cpu']}, {session['cores']} cores",
        "Command": session["command"],
    }
