"""The method from end to end in minutes, on embedded data: no download, no settings to choose."""

from __future__ import annotations

from pathlib import Path

from emoreg.cli.parser import Folder, Quiet
from emoreg.config.augment import AugmentSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

JOBS = 2  # parallel runs: networks this small do not fill two cores
# ResNet-8 and few epochs: sized for two CPU cores and four minutes. On the CPU alone, so that every machine
# runs the same arithmetic.
STAGE_1 = PretrainRecipe(
    stimuli=StimuliSettings(name="procedural", count=1000, image_size=16),
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


def quickstart(*, out: Folder = Path("runs/quickstart"), seeds: int = 3, quiet: Quiet = False) -> None:
    """Run the whole method on embedded data, in minutes: a table and a page.

    Needs no network: stage 1 on procedural affective images, then Learn-E-Reg with its twins and the references on
    handwritten digits. The twin `neutral` is left out: procedural stimuli have no label but their emotion.

    Args:
        out: the study's folder; finished runs in it are kept.
        seeds: runs per arm.

    Examples:
        emoreg quickstart
        emoreg quickstart --seeds 5 --out runs/my-quickstart
    """
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}; it must be at least 1")

    from emoreg.report.analyse_table import analyse
    from emoreg.report.files import write_reports
    from emoreg.report.paper_tables import results_table
    from emoreg.runtime.terminal import show
    from emoreg.study.definition import GridPoint, StimuliRecipe, Study
    from emoreg.study.plan import left_out
    from emoreg.study.run_study import run_study

    stimuli = StimuliRecipe("procedural", STAGE_1)
    point = GridPoint("digits", STAGE_2.backbone.name, STAGE_2, (stimuli,))
    study = Study("emoreg quickstart", (point,), seeds=seeds)
    progress = Progress(quiet=quiet, details=False)
    analysis = analyse(study.name, run_study(study, out, jobs=JOBS, progress=progress), left_out(study))
    page = write_reports(out, analysis)
    show(results_table(analysis))
    for line in left_out(study):
        print(line)
    print(f"page: {page.resolve()}")
