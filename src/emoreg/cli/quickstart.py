"""The whole method in minutes, on embedded data: no download, no settings to choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.cli.parser import Folder, Quiet
from emoreg.config.augment import AugmentSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

UNSEEN, UNSEEN_SEED = 240, 10_000  # images in the picture, drawn with a seed that no stage-1 run uses
JOBS = 2  # parallel runs: networks this small do not fill two cores
# ResNet-8 and few epochs: sized for two CPU cores and four minutes. On the CPU, so that all machines compute alike.
STAGE_1 = PretrainRecipe(
    stimuli=StimuliSettings(name="procedural", count=1000, image_size=16),
    backbone=BackboneSettings(name="resnet8"),
    augment=AugmentSettings(crop_padding=0, flip=True),  # a crop's black border would change brightness
    optimizer=OptimizerSettings(name="adamw", lr=3e-3, weight_decay=0.01, warmup=0.1),
    training=TrainingSettings(epochs=6, batch_size=64, device="cpu", precision="32-true"),
)
STAGE_2 = TrainRecipe(
    target=TargetSettings(name="digits", image_size=16, per_class=5, validation=0.0),  # 50 images leave room for a gain
    backbone=BackboneSettings(name="resnet8"),
    augment=AugmentSettings(crop_padding=1, flip=False),
    optimizer=OptimizerSettings(lr=0.05, warmup=0.2),
    training=TrainingSettings(epochs=25, batch_size=25, device="cpu", precision="32-true"),
)


def quickstart(*, out: Folder = Path("runs/quickstart"), seeds: int = 5, quiet: Quiet = False) -> int:
    """Run the whole method on embedded data, in minutes: a page, a picture, tables and the verdict.

    Needs no internet: stage 1 on procedural affective images, then Learn-E-Reg with its twins and the references on
    handwritten digits, with five training images of each. The twin `neutral` is left out: procedural stimuli have no
    label other than their emotion. read-out.png shows what the encoder of the first seed reads from images that it has
    not seen. The exit code is 1 if a run failed.

    Args:
        out: the study's folder; finished runs in it are kept.
        seeds: runs per arm; below four there is no verdict.

    Examples:
        emoreg quickstart
        emoreg quickstart --seeds 8 --out runs/my-quickstart
    """
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}; it must be at least 1")

    from emoreg.cli.study import print_outcome
    from emoreg.study.definition import GridPoint, StimuliRecipe, Study
    from emoreg.study.plan import left_out
    from emoreg.study.run_study import run_study

    stimuli = StimuliRecipe("procedural", STAGE_1)
    point = GridPoint("digits", STAGE_2.backbone.name, STAGE_2, (stimuli,))
    study = Study("emoreg quickstart", (point,), seeds=seeds)
    progress = Progress(quiet=quiet, details=False)
    table = run_study(study, out, jobs=JOBS, progress=progress)
    try:
        if (picture := _read_out(out, table)) is not None:
            print(f"picture: {picture.resolve()}")
    finally:  # also on a full disk
        for line in left_out(study):
            print(line)
        code = print_outcome(study, table, out)
    return code


def _read_out(out: Path, table: pd.DataFrame) -> Path | None:
    """Draw what the first encoder reads from unseen procedural images and from digits; None if none is finished."""
    import numpy as np

    from emoreg.data.images.image_set import load_images
    from emoreg.data.stimuli.procedural import compose
    from emoreg.data.targets import read_target
    from emoreg.inference.affect_plane import draw_affect_plane
    from emoreg.inference.load import load_readout
    from emoreg.runtime.safe_io import write_atomically, writing
    from emoreg.study.columns import RunStatus
    from emoreg.study.run_study import RUNS

    finished = table[table["status"] == RunStatus.FINISHED]
    encoders = finished[(finished["stage"] == 1) & (finished["experience"] == "affect")]
    if encoders.empty:
        return None
    size, path = STAGE_1.stimuli.image_size, out / "read-out.png"
    unseen, labels = compose(UNSEEN, size, seed=UNSEEN_SEED)
    test = read_target(STAGE_2.target).test
    digits = load_images(test.take(np.arange(UNSEEN)), size, False, 1.0, Progress(quiet=True)).pixels
    assert digits is not None  # None only for sets too large for memory
    readout = load_readout(out / RUNS / Path(encoders["folder"].iloc[0]).name)
    drawn = draw_affect_plane(readout, unseen, labels, digits.permute(0, 2, 3, 1).numpy(), "digits")
    with writing(path):
        write_atomically(path, drawn)
    return path
