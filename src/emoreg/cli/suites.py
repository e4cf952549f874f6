"""The command that scores finished runs beyond accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from emoreg.cli.parser import DeviceName, Quiet, Shown
from emoreg.cli.report import RunsFolder, print_report
from emoreg.cli.study import print_failed_scorings
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

if TYPE_CHECKING:
    from emoreg.suites.options import Suite


def suites(
    folders: Annotated[Sequence[Path], Shown("RUN_OR_STUDY", "run folders, or folders of studies")],
    *,
    suites: Annotated[Sequence[str], Shown("SUITE")] = (),
    runs: RunsFolder | None = None,
    jobs: int = 1,
    device: DeviceName = "auto",
    quiet: Quiet = False,
) -> int:
    """Score finished runs beyond accuracy: corrupted images, calibration, unknown classes, attacks, other targets.

    Uses the saved models; nothing is trained. Results are stored in the run folders, and are not computed again. Given
    a study's folder, scores all of its finished runs, and writes its table and report again.

    Args:
        suites: corruptions, calibration, out_of_distribution, adversarial, transfer, human_uncertainty; with options
            as YAML. Default: the suites of the study's file; for run folders, those that need no other images or files
        jobs: parallel runs, for studies
        device: device for run folders; runs of a study use that of their recipe

    Examples:
        emoreg suites runs/cifar10-resnet20-learn-e-reg-seed0
        emoreg suites runs/mine --suites calibration "out_of_distribution: {sets: [cifar100, svhn]}"
        emoreg suites runs/cifar10-pilot --suites corruptions "adversarial: {images: 500, eps: [1, 4]}" --jobs 2
    """
    from emoreg.study.read_study import FILE
    from emoreg.suites.options import parse_suites

    if not folders:
        raise UserError("name a run folder, or the folder of a study")
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    requested = parse_suites(suites)
    studies = [folder for folder in folders if (folder / FILE).is_file()]
    if runs is not None and len(studies) != 1:
        raise UserError("--runs is for one study; give its folder")
    code = 0
    for folder in studies:
        code = max(code, _score_study(folder, requested, jobs, quiet, runs))
    if run_folders := [folder for folder in folders if folder not in studies]:
        requested = requested or parse_suites(("corruptions", "calibration", "adversarial"))
        _score_runs(run_folders, requested, device, quiet)
    return code


def _score_study(folder: Path, requested: Sequence[Suite], jobs: int, quiet: bool, runs: Path | None) -> int:
    from emoreg.study.plan import left_out
    from emoreg.study.score_study import score_study

    study, table = score_study(folder, requested, jobs, Progress(quiet=quiet, details=False), runs)
    print_report(study.study.name, table, study.out, left_out(study.study), is_requested=False)
    return print_failed_scorings(table, study.out)


def _score_runs(runs: Sequence[Path], requested: Sequence[Suite], device: DeviceName, quiet: bool) -> None:
    import pandas as pd

    from emoreg.runs.run import Run
    from emoreg.runtime.terminal import show
    from emoreg.study.tables import rows_table
    from emoreg.suites.figures import headlines
    from emoreg.suites.score import require_scorable, score_suites

    for folder in runs:
        require_scorable(Run(folder))  # before anything is scored
    rows, notes = [], []
    for folder in runs:
        for result in score_suites(folder, requested, device, progress=Progress(quiet=quiet)):
            notes.append(f"{result.suite}: {result.images}")
            for headline in headlines(result.suite):
                value = result.figures.get(headline.name, float("nan"))
                rows.append({"run": folder.name, "suite": result.suite, "figure": headline.name, "value": value})
    show(rows_table(pd.DataFrame(rows)), "", *dict.fromkeys(notes))
