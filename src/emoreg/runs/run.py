"""A run is a folder: what was asked, where it ran, what came out. Written atomically, so it is never half."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emoreg.config.recipe import differences, read_recipe, read_yaml, recipe_yaml
from emoreg.config.schema import PretrainRecipe, Recipe, TrainRecipe
from emoreg.errors import UserError, shortened
from emoreg.runs.readers import FORMAT, read_final, read_metrics, read_record, read_state, read_weights
from emoreg.runtime.lock import hold, is_trace
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

RECIPE, ENVIRONMENT, METRICS = "recipe.yaml", "environment.json", "metrics.csv"
CHECKPOINT, WEIGHTS, FINAL = "checkpoint.pt", "model.safetensors", "final.json"

RECORDED = ("emoreg", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "torchmetrics")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder.

    | file | holds |
    |---|---|
    | recipe.yaml | every setting |
    | environment.json | versions, git revision, hardware, command; one entry a start or restart |
    | metrics.csv | one row an epoch |
    | checkpoint.pt | all that a restart needs (kept until the run is finished) |
    | model.safetensors | the final weights; what they mean stands in the file's metadata |
    | final.json | the final metrics; its presence says that the run is finished |
    | tensorboard/, trackers.json | what trackers have of it, if any are asked for |
    """

    folder: Path
    writes: bool = True
    """False in all processes of a run but one: what they are told to write is dropped."""

    @functools.cached_property
    def recipe(self) -> Recipe:
        """What was asked."""
        path = self.folder / RECIPE
        try:
            return read_recipe(PretrainRecipe, path) if self.stage == 1 else read_recipe(TrainRecipe, path)
        except UserError as error:
            raise UserError(f"{error}{self._written_by()}") from None

    @functools.cached_property
    def stage(self) -> Literal[1, 2]:
        """1 for an emotional encoder, 2 for a classifier."""
        try:
            keys = read_yaml(self.folder / RECIPE)
        except UserError as error:
            raise UserError(f"{self.folder} is not a run folder: {error}") from None
        if not isinstance(keys, dict):
            raise UserError(f"{self.folder} is not a run folder: its {RECIPE} is no mapping of keys to values")
        return 1 if "stimuli" in keys else 2

    def _written_by(self) -> str:
        """What to add to an error: that another version of emoreg wrote the run, if one did."""
        try:
            written, own = self.environment[-1]["packages"]["emoreg"], _version("emoreg")
        except (UserError, LookupError, TypeError):
            return ""
        return "" if written == own else f"; emoreg {shortened(str(written), 20)} wrote this run, and this is {own}"

    @property
    def is_finished(self) -> bool:
        """Whether the final metrics are there."""
        return (self.folder / FINAL).exists()

    @property
    def has_begun(self) -> bool:
        """Whether anything of it would be lost: an epoch or more is done."""
        return self.is_finished or (self.folder / CHECKPOINT).exists()

    @property
    def metrics(self) -> pd.DataFrame:
        """One row an epoch. UserError if the file is damaged."""
        return read_metrics(self.folder / METRICS)

    @property
    def final(self) -> dict[str, Any]:
        """The final metrics. UserError if the run is not finished, or they are damaged."""
        if not self.is_finished:
            raise UserError(f"the run {self.folder} is not finished; start it again and it goes on")
        return read_final(self.folder / FINAL)

    @property
    def environment(self) -> list[dict[str, Any]]:
        """Where it ran: one entry a start or restart."""
        path = self.folder / ENVIRONMENT
        sessions = read_record(path).get("sessions") if path.exists() else []
        if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
            raise UserError(f"{path} is damaged (no list of sessions); delete it, and the same command makes it anew")
        return sessions

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The final weights, and the metadata that `finish` was given.

        Raises:
            UserError: as `saved.read_weights`; the run is not finished.
        """
        if not self.is_finished:
            raise UserError(f"the run {self.folder} is not finished; start it again and it goes on")
        return read_weights(self.folder / WEIGHTS)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep all that a restart needs, and the metrics so far (`state["rows"]`) for people.

        Raises:
            UserError: it cannot be written; what was saved before is kept.
        """
        import torch

        if not self.writes:
            return
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        self._write_metrics(state["rows"])  # first: no epoch that is in the checkpoint is written again
        self._write(CHECKPOINT, buffer.getbuffer())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """What was last saved; None for a run that has not finished its first epoch.

        Raises:
            UserError: as `saved.read_state`.
        """
        path = self.folder / CHECKPOINT
        return read_state(path) if path.exists() else None

    def finish(self, weights: Mapping[str, Tensor], metadata: Mapping[str, Any], final: Mapping[str, Any]) -> None:
        """Write the final weights and metrics; from here on the run is finished.

        Raises:
            UserError: they cannot be written; the checkpoint is kept.
        """
        from safetensors.torch import save

        # Cloned, as the format has no place for weights that share memory, such as one module in both branches.
        tensors = {key: value.contiguous().clone() for key, value in weights.items()}
        content = save(tensors, {"emoreg": json.dumps({"format": FORMAT, **metadata})})
        self._write(WEIGHTS, content)
        self._write(FINAL, _json(final))
        self.drop_checkpoint()

    def drop_checkpoint(self) -> None:
        """Of a finished run: it is of no use any more. Where it cannot be deleted it is in no one's way."""
        with contextlib.suppress(OSError):
            (self.folder / CHECKPOINT).unlink()

    def _write_metrics(self, rows: list[dict[str, float]]) -> None:
        import pandas as pd

        self._write(METRICS, pd.DataFrame(rows).to_csv(index=False).encode())

    def _write(self, name: str, content: bytes | memoryview) -> None:
        if not self.writes:
            return
        try:
            write_atomically(self.folder / name, content)
        except OSError as error:
            reason = f"{error.strerror or error}; what was saved before is kept, and the same command goes on from it"
            if not self.folder.is_dir():
                reason = "the run folder is gone; the same command begins anew"
            raise UserError(f"cannot write {self.folder / name}: {reason}") from None


def start_run(folder: Path | str, recipe: Recipe) -> Run:
    """The run of `recipe` in `folder`: new, half done, or finished.

    Raises:
        UserError: the folder holds a run of another recipe (the differing settings are named), or something
            else; or it cannot be written.
    """
    run = Run(Path(folder))
    _make_folder(run.folder)
    if (run.folder / RECIPE).exists():
        kind = PretrainRecipe if run.stage == 1 else TrainRecipe
        if not isinstance(recipe, kind):
            raise UserError(f"{run.folder} holds a run of stage {run.stage}; choose another folder with --out")
        changed = differences(run.recipe, recipe)
        if changed and run.has_begun:
            raise UserError(
                f"{run.folder} holds a run with other settings ({'; '.join(changed)}); "
                "choose another folder with --out, or delete that one"
            )
        if not changed:
            return run
    run._write(RECIPE, recipe_yaml(recipe).encode())  # of a run whose first start failed, this corrects it
    return Run(run.folder)


def _make_folder(folder: Path) -> None:
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        elif not (folder / RECIPE).exists() and not all(map(is_trace, folder.iterdir())):
            raise UserError(f"{folder} is not empty and holds no run; choose another folder with --out")
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror or error}") from None


def carry_out(folder: Path | str, recipe: Recipe, work: Callable[[Run], None], progress: Progress) -> Run:
    """The run of `recipe` in `folder`, done by `work` unless it is finished already. One process at a time.

    Raises:
        UserError: as `start_run`; another process is at it.
    """
    folder = Path(folder)
    if not Run(folder).is_finished:  # one that is may lie where nothing can be written
        _make_folder(folder)
        with hold(folder):  # before the recipe is written: it may be another process's that has not saved yet
            run = start_run(folder, recipe)
            if not run.is_finished:  # the process that was waited for may have done it
                work(run)
                return run
    run = start_run(folder, recipe)
    run.drop_checkpoint()  # the process that finished it may have been killed before
    progress.detail(f"{folder}: finished already, nothing is trained again")
    return run


def record_session(run: Run, facts: Mapping[str, Any]) -> None:
    """Add where this start or restart runs, and `facts` about it, to environment.json. UserError if it cannot."""
    sessions = [*run.environment, {**environment(), **facts}]
    run._write(ENVIRONMENT, _json({"sessions": sessions}))


def environment() -> dict[str, Any]:
    """Time, command, versions, git revision and hardware of this process."""
    import torch

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in RECORDED},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _json(content: Mapping[str, Any]) -> bytes:
    # The odd characters of a path that is no Unicode are escaped, which for JSON is the same text.
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_revision() -> str | None:
    """Revision of emoreg's own source, with "+changes" if it was edited since; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # a site-packages inside someone else's checkout is not ours
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
