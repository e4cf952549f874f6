"""Run folders: recipe, environment, metrics, weights. Every file is written atomically."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from emoreg.config.read_recipe import read_recipe, recipe_yaml
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.setting_types import path_of
from emoreg.config.strict_yaml import read_yaml
from emoreg.config.training import Precision
from emoreg.errors import Diverged, UserError, shortened
from emoreg.runs.inputs import Inputs, changes, from_record
from emoreg.runs.provenance import environment, package_version
from emoreg.runs.readers import FORMAT, damaged_record, read_final, read_metrics, read_record, read_state, read_weights
from emoreg.runtime.lock import hold_new, is_trace
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import make_folder, read_json, write_atomically, write_json

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

RECIPE, ENVIRONMENT, METRICS = "recipe.yaml", "environment.json", "metrics.csv"
CHECKPOINT, WEIGHTS, FINAL, DIVERGED = "checkpoint.pt", "model.safetensors", "final.json", "diverged.json"
SEEN, INPUTS = "seen.bin", "inputs.json"
EVENTS = "tensorboard"  # a folder
TRACKED = "trackers.json"  # by tracker and place, the id of the run there and its number of rows
EXPORT_CONFIG = "config.json"  # exists in every export, and in no run
CONFUSION_TABLE, CONFUSION_PICTURE = "confusion.csv", "confusion.png"
CALIBRATION = "calibration.json"
FILES = (  # files and folders that a run may hold
    *(RECIPE, INPUTS, ENVIRONMENT, SEEN, METRICS, CHECKPOINT, WEIGHTS, FINAL, DIVERGED, TRACKED, EVENTS),
    *(CONFUSION_TABLE, CONFUSION_PICTURE, CALIBRATION, "wandb", "experience", "suites", "explain"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder.

    | file | content |
    |---|---|
    | recipe.yaml | every setting |
    | inputs.json | checksums of its images and stage-1 weights, see `runs.inputs` |
    | environment.json | versions, git revision, hardware, command; one entry per start or restart |
    | seen.bin | a checksum of every training image, see `stages.leaks`; in stage 2 only for sets kept in memory |
    | metrics.csv | one row per epoch |
    | checkpoint.pt | everything needed to resume; deleted when the run is finished |
    | model.safetensors | the final weights; the file's metadata says how to use them |
    | final.json | the final metrics; a run is finished when this file exists |
    | diverged.json | why a run diverged; such a run has neither of the two files above |
    | calibration.json | the temperature of the finished classifier, see `inference.temperature` |
    | confusion.csv, confusion.png | the confusion matrix on the test images; `emoreg train` writes them |
    | suites/ | results of suites, see `suites.results` |
    | explain/ | the page of `emoreg explain` |
    | experience/ | a copy of the stage-1 run, for `predict`; only if you put it there |
    | tensorboard/, wandb/, trackers.json | event files, offline files, and what each tracker has received |
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", path_of(self.folder, "folder"))  # accepts text

    @functools.cached_property
    def recipe(self) -> Recipe:
        """All settings. Raises UserError if the recipe is damaged."""
        path = self.folder / RECIPE
        try:
            kind: type[Recipe] = PretrainRecipe if self.stage == 1 else TrainRecipe
            return read_recipe(kind, path, is_stored=True)
        except UserError as error:
            raise UserError(f"{error}{self._written_by()}") from None

    @functools.cached_property
    def stage(self) -> Literal[1, 2]:
        """1 for an emotional encoder, 2 for a classifier. Raises UserError if this is not a run folder."""
        try:
            keys, _ = read_yaml(self.folder / RECIPE)
        except UserError as error:
            if not (self.folder / RECIPE).exists() and _is_export(self.folder):
                raise UserError(
                    f"{self.folder} is not a run folder but an export, as its {EXPORT_CONFIG} says: give the run that "
                    "it was made from. Its README.md says how to load it: in format hub, by "
                    "emoreg.RegulatedModel.from_pretrained in Python"
                ) from None
            raise UserError(f"{self.folder} is not a run folder: {error}") from None
        if not isinstance(keys, dict):
            raise UserError(f"{self.folder} is not a run folder: its {RECIPE} is not a mapping of keys to values")
        return 1 if "stimuli" in keys else 2

    def _written_by(self) -> str:
        """Return the end of an error message if another version of emoreg wrote the run, else an empty text."""
        try:
            writer, own = self.environment[-1]["packages"]["emoreg"], package_version("emoreg")
        except (UserError, LookupError, TypeError):
            return ""
        return "" if writer == own else f"; emoreg {shortened(str(writer), 20)} wrote this run, and this is {own}"

    @property
    def is_finished(self) -> bool:
        """Whether the final metrics exist."""
        return (self.folder / FINAL).exists()

    @property
    def has_diverged(self) -> bool:
        """Whether the run ended because losses, weights or outputs were not finite."""
        return (self.folder / DIVERGED).exists()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train: the run is finished, or has diverged."""
        return self.is_finished or self.has_diverged

    @property
    def has_begun(self) -> bool:
        """Whether the run has something to lose: it has a checkpoint, or has ended."""
        return self.has_ended or (self.folder / CHECKPOINT).exists()

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per epoch. Raises UserError if the file is damaged."""
        return read_metrics(self.folder / METRICS)

    @property
    def last_loss(self) -> float | None:
        """Training loss of the last epoch; None without metrics. Raises UserError if they are damaged."""
        if not (self.folder / METRICS).exists():
            return None
        losses = self.metrics.get("train_loss")
        return None if losses is None or losses.empty else float(losses.iloc[-1])

    @property
    def final(self) -> dict[str, Any]:
        """The final metrics. Raises UserError if the run is not finished, or the file is damaged."""
        self.require_finished()
        return read_final(self.folder / FINAL)

    @property
    def divergence(self) -> Diverged | None:
        """The error of a diverged run; None if it has not diverged. Raises UserError if the file is damaged."""
        if not self.has_diverged:
            return None
        path = self.folder / DIVERGED
        reason = read_record(path).get("error")
        if not isinstance(reason, str):
            raise damaged_record(path, "no reason")
        return Diverged(f"{self.folder}: {reason}")

    @property
    def environment(self) -> list[dict[str, Any]]:
        """Where the run was trained: one entry per start or restart. Raises UserError if the file is damaged."""
        path = self.folder / ENVIRONMENT
        sessions = read_record(path).get("sessions") if path.exists() else []
        if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
            raise damaged_record(path, "no list of sessions")
        return sessions

    @property
    def precision(self) -> Precision | None:
        """Precision of the last session; None if unknown."""
        try:
            precision = self.environment[-1].get("precision")
        except (UserError, IndexError):
            return None
        return precision if precision in get_args(Precision) else None

    @property
    def inputs(self) -> Inputs:
        """Inputs that the run was started with, if known: earlier versions of emoreg recorded only stage-1 weights.

        Raises:
            UserError: inputs.json, or environment.json in its absence, is damaged.
        """
        path = self.folder / INPUTS
        if path.exists():
            try:
                return from_record(read_record(path))
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error}); delete it to continue without this check") from None
        recorded = self.environment[0].get("experience") if self.environment else None
        checksum = recorded.get("sha256") if isinstance(recorded, dict) else None
        return Inputs(experience=checksum if isinstance(checksum, str) else None)

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the final weights, and the metadata passed to `finish`.

        Raises:
            UserError: as for `read_weights`, or the run is not finished.
        """
        self.require_finished()
        return read_weights(self.folder / WEIGHTS)

    def require_finished(self) -> None:
        """Raise UserError if the run is not finished, has diverged, or does not exist."""
        if self.is_finished:
            return
        if not self.folder.is_dir():
            place = "" if self.folder.is_absolute() else f" in {Path.cwd()}"
            raise UserError(f"there is no run folder {self.folder}{place}")
        if (divergence := self.divergence) is not None:
            raise UserError(str(divergence))  # not Diverged, since the caller's own run has not diverged
        raise UserError(f"the run {self.folder} is not finished; run its command again to resume it")

    def record_session(self, facts: Mapping[str, Any]) -> None:
        """Add this process's environment and `facts` to environment.json; raise UserError if that fails."""
        content = {"sessions": [*self.environment, {**environment(), **facts}]}
        with self._writing(ENVIRONMENT) as path:
            write_json(path, content)

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file of the run atomically; raise UserError if that fails."""
        with self._writing(name) as path:
            write_atomically(path, content)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write everything needed to resume, and the metrics so far (`state["rows"]`) as metrics.csv.

        Raises:
            UserError: a file cannot be written; the last checkpoint is kept.
        """
        import pandas as pd
        import torch

        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        metrics = pd.DataFrame(state["rows"]).to_csv(index=False)
        self.write(METRICS, metrics.encode())  # first, since a resumed run does not repeat the checkpoint's epochs
        self.write(CHECKPOINT, buffer.getbuffer())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint; None if there is none.

        Raises:
            UserError: as for `read_state`.
        """
        path = self.folder / CHECKPOINT
        return read_state(path) if path.exists() else None

    def finish(self, weights: Mapping[str, Tensor], metadata: Mapping[str, Any], final: Mapping[str, Any]) -> None:
        """Write the final weights and metrics, which finishes the run, and delete the checkpoint.

        Raises:
            UserError: a file cannot be written; the checkpoint is kept.
        """
        from safetensors.torch import save

        # Cloned, because the format does not allow shared memory, as of one module in both branches.
        tensors = {key: value.contiguous().clone() for key, value in weights.items()}
        self.write(WEIGHTS, save(tensors, {"emoreg": json.dumps({"format": FORMAT, **metadata})}))
        with self._writing(FINAL) as path:
            write_json(path, final)
        self.drop_checkpoint()

    def end_diverged(self, reason: str) -> Diverged:
        """Record that the run has diverged, which ends it, and return the error to raise."""
        with self._writing(DIVERGED) as path:
            write_json(path, {"error": reason})
        return Diverged(f"{self.folder}: {reason}")

    def drop_checkpoint(self) -> None:
        """Delete the checkpoint of a finished run; errors are ignored, since it does no harm."""
        with contextlib.suppress(OSError):
            (self.folder / CHECKPOINT).unlink()

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a file, and convert an OSError of writing it to UserError."""
        path = self.folder / name
        try:
            yield path
        except OSError as error:
            reason = f"{error.strerror or error}; what was saved before is kept: run the same command again to resume"
            if not self.folder.is_dir():
                reason = "the run folder is gone; run the same command again to start over"
            raise UserError(f"cannot write {path}: {reason}") from None


def _is_export(folder: Path) -> bool:
    """Whether a folder contains an exported classifier, whose config, unlike other models', has a regulation."""
    try:
        config = read_json(folder / EXPORT_CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "regulation" in config


def open_run(run: Run | Path | str) -> Run:
    """Convert a run, or its folder, which need not exist, to a Run; raise SettingError for anything else."""
    return run if isinstance(run, Run) else Run(path_of(run, "run"))


def start_run(folder: Path | str, recipe: Recipe, inputs: Inputs | None = None) -> Run:
    """Return the run of `recipe` in `folder`, which may be new, unfinished or finished.

    Args:
        folder: the run folder.
        recipe: all settings.
        inputs: current inputs; None if unknown.

    Raises:
        UserError: the folder holds a run of another recipe, images or stage-1 weights (the message names the
            differences), or something else; or it cannot be written.
    """
    run, inputs = Run(Path(folder)), inputs or Inputs()
    make_folder(run.folder, "run folder")
    started = find_started_run(run.folder, recipe, inputs)
    if started is not None:
        if not started.has_ended and not (started.folder / INPUTS).exists():  # started by an earlier emoreg
            _write_inputs(started, inputs)
        return started
    _drop_first_start(run, recipe, inputs)
    run.write(RECIPE, recipe_yaml(recipe).encode())
    _write_inputs(run, inputs)
    return Run(run.folder)


def find_started_run(folder: Path, recipe: Recipe, inputs: Inputs) -> Run | None:
    """Return the run of `recipe` in `folder` if it was started, else None. Writes nothing.

    Args:
        folder: the run folder, which need not exist.
        recipe: as for `start_run`.
        inputs: as for `start_run`.

    Raises:
        UserError: as for `start_run`.
    """
    run = Run(folder)
    _refuse_anything_else(folder)
    if not (folder / RECIPE).exists():
        return None
    if not isinstance(recipe, PretrainRecipe if run.stage == 1 else TrainRecipe):
        raise UserError(f"{folder} holds a run of stage {run.stage}; choose another folder")
    before = run.inputs if run.has_begun else inputs
    settings, others = changes(run.recipe, recipe, before, inputs)
    if settings and run.has_begun:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join([*settings, *others])}); "
            "choose another folder, or delete that one"
        )
    if others:
        raise UserError(
            f"{folder} holds a run of other images or weights ({'; '.join(others)}); restore what it was "
            "started with, choose another folder, or delete that one"
        )
    return run if run.has_begun else None


def _drop_first_start(run: Run, recipe: Recipe, inputs: Inputs) -> None:
    """Delete the records of a run that has not begun if its recipe or inputs were others: they describe another run."""
    if not (run.folder / RECIPE).exists():
        return
    with contextlib.suppress(UserError):  # of damaged records
        if not any(changes(run.recipe, recipe, run.inputs, inputs)):
            return
    for name in (ENVIRONMENT, SEEN, METRICS, TRACKED):
        with run._writing(name) as path:
            path.unlink(missing_ok=True)
    shutil.rmtree(run.folder / EVENTS, ignore_errors=True)


def _write_inputs(run: Run, inputs: Inputs) -> None:
    with run._writing(INPUTS) as path:
        write_json(path, inputs.record())


def _refuse_anything_else(folder: Path) -> None:
    """Raise UserError for a folder that contains anything but a run, or cannot be read."""
    try:
        if folder.exists() and not (folder / RECIPE).exists() and not all(map(is_trace, folder.iterdir())):
            raise UserError(f"{folder} is not empty and holds no run; choose another folder")
    except OSError as error:
        raise UserError(f"cannot read the run folder {folder}: {error.strerror or error}") from None


@contextlib.contextmanager
def _undone_on_failure(folder: Path) -> Iterator[None]:
    """If a new run fails before anything is trained, delete the files that it has written."""
    existed = (folder / RECIPE).exists()
    try:
        yield
    except BaseException as error:
        written = {RECIPE, INPUTS, SEEN}
        if isinstance(error, UserError):  # such as an impossible setting
            written.add(ENVIRONMENT)
        with contextlib.suppress(OSError):  # an error here would hide the original one
            if not existed and all(path.name in written or is_trace(path) for path in folder.iterdir()):
                for name in written:
                    (folder / name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def claim_run(folder: Path | str, recipe: Recipe, progress: Progress, inputs: Inputs | None = None) -> Iterator[Run]:
    """Yield the run of `recipe` in `folder`, locked for this process unless it is finished: check `is_finished`.

    If the block raises `Diverged`, this is recorded in the folder, and raised again with advice.

    Args:
        folder: the run folder.
        recipe: all settings.
        progress: reports a run that is finished already.
        inputs: as for `start_run`.

    Raises:
        Diverged: the run diverged earlier; it is not trained again.
        UserError: as for `start_run`, or another process is training the run.
    """
    folder = Path(folder)
    if not Run(folder).is_finished:  # a finished run may be on a read-only disk
        _refuse_anything_else(folder)
        # Locked before the recipe is written: another process may not have saved anything yet.
        with hold_new(folder, "run folder"), _undone_on_failure(folder):
            run = start_run(folder, recipe, inputs)
            if not run.is_finished:  # another process may have finished it while this one waited
                if (divergence := run.divergence) is not None:
                    raise divergence
                try:
                    yield run
                except Diverged as error:
                    raise run.end_diverged(_with_remedy(error, recipe)) from None
                return
    run = start_run(folder, recipe, inputs)
    run.drop_checkpoint()  # the process that finished the run may have been killed just before
    progress.detail(f"{folder}: already finished, nothing to train")
    yield run


def _with_remedy(error: Diverged, recipe: Recipe) -> str:
    stage = 1 if isinstance(recipe, PretrainRecipe) else 2
    rehearses = isinstance(recipe, TrainRecipe) and recipe.encoder.rehearsal > 0
    lower = "optimizer.lr or encoder.rehearsal" if rehearses else "optimizer.lr"
    return (
        f"stage {stage} diverged: {error}; lower {lower}, raise optimizer.warmup or set optimizer.clip_norm in "
        "another run; to train this one again, delete its folder"
    )
