"""Do one job of a plan, a run or its suites, in the process that a pool chooses."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from emoreg.config.recipe import PretrainRecipe
from emoreg.errors import Diverged, UserError
from emoreg.runtime.lock import FolderInUse
from emoreg.runtime.progress import Progress
from emoreg.study.columns import RunStatus
from emoreg.study.plan import PlannedRun, in_existing_folders
from emoreg.study.scorings import PlannedScoring

Job = PlannedRun | PlannedScoring


@dataclass(frozen=True)
class RunOutcome:
    """The end of a job: finished, diverged, failed, blocked, or still waiting because another process is doing it."""

    run: Job  # in the folder in which it was done
    status: RunStatus
    error: str | None = None  # one line; None for a finished run
    traceback: str = ""


def perform(run: Job, progress: Progress) -> RunOutcome:
    """Do one job. Any exception except an interrupt becomes its outcome."""
    try:
        if isinstance(run, PlannedScoring):
            _score(run, progress)
        else:
            (run,) = in_existing_folders([run])
            _train(run, progress)
    except FolderInUse as error:
        return RunOutcome(run, RunStatus.WAITING, str(error))
    except Diverged as error:
        return RunOutcome(run, RunStatus.DIVERGED, str(error))
    except UserError as error:
        return RunOutcome(run, RunStatus.FAILED, str(error))
    except OSError as error:
        reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        return RunOutcome(run, RunStatus.FAILED, reason, traceback.format_exc())
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return RunOutcome(run, RunStatus.FAILED, reason, traceback.format_exc())
    return RunOutcome(run, RunStatus.FINISHED)


def _train(run: PlannedRun, progress: Progress) -> None:
    from emoreg.stages.classify import train
    from emoreg.stages.pretrain import pretrain

    if isinstance(run.recipe, PretrainRecipe):
        pretrain(run.recipe, run.folder, progress=progress)
    else:
        train(run.recipe, run.folder, progress=progress)


def _score(job: PlannedScoring, progress: Progress) -> None:
    from emoreg.suites.score import score_suites
    from emoreg.training.fabric import is_available

    device = job.recipe.training.device
    score_suites(
        job.folder, job.suites, device if is_available(device) else "auto", progress=progress, recipe=job.recipe
    )
