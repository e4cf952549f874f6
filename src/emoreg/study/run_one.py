"""Doing one run of a plan, whichever process it is done in."""

from __future__ import annotations

import traceback

from emoreg.config.schema import PretrainRecipe
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.study.plan import PlannedRun

Done = tuple[PlannedRun, str | None, str]  # a run, its error if it has one, and the traceback


def blocked(run: PlannedRun) -> Done:
    """The end of a run that was not begun."""
    return run, "not run, as the stage-1 run that it needs has failed", ""


def perform(run: PlannedRun, progress: Progress) -> tuple[str | None, str]:
    """Do one run. Its error in one line, None if there is none, and the traceback."""
    from emoreg.stages.classify import train
    from emoreg.stages.pretrain import pretrain

    try:
        if isinstance(run.recipe, PretrainRecipe):
            pretrain(run.recipe, run.folder, progress=progress)
        else:
            train(run.recipe, run.folder, progress=progress)
    except UserError as error:
        return str(error), ""
    except OSError as error:
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", traceback.format_exc()
    except Exception as error:  # whatever it is, the other runs go on; the traceback is kept
        return " ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc()
    return None, ""
