"""The command that scores finished runs beyond accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from emoreg.cli.parser import DeviceName, Quiet, Shown
from emoreg.cli.report import RunsFolder
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
    """Score finished runs beyond accuracy: damaged images, calibration, other things, attacks, other targets.

    From the saved models; nothing is trained. Results are kept in the run folders, and what is there is not scored
    again. With a study's folder, all of its finished runs are scored, and its table and report are written again.

    Args:
        suites: corruptions, calibration, out_of_distribution, adversarial, transfer, human_uncertainty; with options
            as YAML. Default: those of the study's file; of a run folder, those that need no other images or files
        jobs: of a study, runs at a time
        device: of run folders; those of a study have their recipe's

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
    asked = parse_suites(suites)
    studies = [folder for folder in folders if (folder / FILE).is_file()]
    if runs is not None and len(studies) != 1:
        raise UserError("--runs is for one study; give its folder")
    code = 0
    for folder in studies:
        code = max(code, _score_study(folder, asked, jobs, quiet, runs))
    if alone := [folder for folder in folders if folder not in studies]:
        _score_runs(alone, asked or parse_suites(("corruptions", "calibration", "adversarial")), device, quiet)
    return code


def _score_study(folder: Path, asked: Sequence[Suite], jobs: int, quiet: bool, runs: Path | None) -> int:
    from emoreg.cli.report import print_report
    from emoreg.cli.study import tell_failed
    from emoreg.study.plan import left_out
    from emoreg.study.score_runs import failed_scorings
    from emoreg.study.score_study import score_study

    study, table = score_study(folder, asked, jobs, Progress(quiet=quiet, details=False), runs)
    print_report(study.study.name, table, study.out, left_out(study.study), is_asked_for=False)
    return tell_failed(failed_scorings(study.out, table["id"]), study.out)


def _score_runs(runs: Sequence[Path], asked: Sequence[Suite], device: DeviceName, quiet: bool) -> None:
    import pandas as pd

    from emoreg.runs.run import Run
    from emoreg.runtime.terminal import show
    from emoreg.study.tables import rows_table
    from emoreg.suites.figures import headlines
    from emoreg.suites.score import require_scorable, score_suites

    for folder in runs:
        require_scorable(Run(folder))  # before anything is scored
    rows, told = [], dict[str, None]()
    for folder in runs:
        for result in score_suites(folder, asked, device, progress=Progress(quiet=quiet)):
            told[f"{result.suite}: {result.images}"] = None
            for each in headlines(result.suite):
                figure = result.figures.get(each.name, float("nan"))
                rows.append({"run": folder.name, "suite": result.suite, "figure": each.name, "value": figure})
    show(rows_table(pd.DataFrame(rows)), "", *told)
