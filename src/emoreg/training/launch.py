"""Runs on one device, or on several with one process each, on one machine or several (Fabric's DDP).

Every process takes its share of each batch, with the order and augmentation of a single process; gradients are
averaged. Only the leading process, of rank 0, writes, measures and prints.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import distributed

from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.setting_types import path_of
from emoreg.config.training import TrainingSettings
from emoreg.errors import Diverged, UserError, printable, shortened
from emoreg.runs.inputs import Inputs
from emoreg.runs.run import Run, claim_run
from emoreg.runs.trackers import Track, send_later, tracked
from emoreg.runtime import launch_env, main_module
from emoreg.runtime.cores import allowed_cores, take_part, usable_cores
from emoreg.runtime.optional import import_fabric
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generators_kept
from emoreg.runtime.signals import Stopped, end_with_parent, heed_requests, without_interrupts
from emoreg.runtime.streams import print_line
from emoreg.training.fabric import make_fabric, resolve_precision, training_settings

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import SimpleQueue

    from lightning_fabric import Fabric

R = TypeVar("R", PretrainRecipe, TrainRecipe)


@dataclass(frozen=True)
class RunContext(Generic[R]):
    """A run as seen by one of its processes.

    Args:
        fabric: device and precision, and the other processes.
        run: where the leading process writes checkpoint, metrics and weights.
        recipe: all settings.
        track: sends all rows so far to the trackers; does nothing in other processes.
        progress: silent in other processes.
    """

    fabric: Fabric
    run: Run
    recipe: R
    track: Track
    progress: Progress

    @property
    def is_leader(self) -> bool:
        """Whether this process writes, measures and prints."""
        return self.fabric.global_rank == 0

    def record_session(self, **facts: Any) -> None:
        """Add this start or restart to the run's environment.json: device, precision, processes, lr and `facts`."""
        if self.is_leader:
            device, processes = self.fabric.device, self.fabric.world_size
            precision = resolve_precision(training_settings(self.recipe, self.run), device.type)
            lr = self.recipe.optimizer.peak_lr(self.recipe.training.batch_size)
            settings = {"device": str(device), "precision": precision, "processes": processes, "lr": lr}
            self.run.record_session(settings | facts)


UNPICKLABLE = (AttributeError, TypeError, pickle.PicklingError)  # raised by pickle, depending on the object
# A stage of the method: trains the run of a context with user-supplied objects (images, a model).
Stage = Callable[[RunContext[Any], Any], None]


def launch(
    folder: Path | str, recipe: Recipe, stage: Stage, given: Any, progress: Progress, inputs: Inputs | None = None
) -> Run:
    """Train the run of `recipe` in `folder` to its end, on its devices; a finished run is returned as it is.

    Global random generators keep their state.

    Args:
        folder: run folder.
        recipe: training.devices is the number of processes, unless torchrun or srun has started them.
        stage: a module-level function, so that other processes can import it.
        given: passed on to `stage`; other processes get a copy.
        progress: passed on to `stage`.
        inputs: as for `claim_run`.

    Raises:
        UserError: as `claim_run`; fewer devices than requested; a process has died; another launcher, such as mpirun,
            has started several processes; a script needs a main guard and has none.
    """
    folder = path_of(folder, "out")
    main_module.require_guard()
    launch_env.refuse_other_launchers("start a run with torchrun or srun, or once, with training.devices")
    with generators_kept():
        if launch_env.processes() > 1:
            return _join_launched(folder, recipe, stage, given, progress, inputs)
        with claim_run(folder, recipe, progress, inputs) as run, _determinism_restored():
            if run.is_finished:
                send_later(run, recipe, progress)
            elif recipe.training.devices > 1:
                _spawn(run, recipe, stage, given, progress)
            else:
                _carry_out(make_fabric(training_settings(recipe, run)), run, recipe, stage, given, progress)
        return run


@contextlib.contextmanager
def _determinism_restored() -> Iterator[None]:
    """Restore PyTorch's setting of deterministic algorithms on exit, which training.deterministic changes."""
    is_on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_on, warn_only=warns)


def _carry_out(fabric: Fabric, run: Run, recipe: Any, stage: Stage, given: Any, progress: Progress) -> None:
    """Take part in a run as one of its processes."""
    if fabric.global_rank > 0:
        stage(RunContext(fabric, run, recipe, lambda _rows: None, Progress(quiet=True)), given)
        return
    device = fabric.device.type
    began, here = resolve_precision(training_settings(recipe, run), device), resolve_precision(recipe.training, device)
    if run.has_begun and began != here:
        slow = ", which is slow on this device" if began == "bf16-mixed" else ""
        progress.say(
            f"{run.folder.name}: was started in {began} and continues in it{slow} (training.precision auto is {here} "
            "here)"
        )
    with tracked(run, recipe, progress) as track:
        stage(RunContext(fabric, run, recipe, track, progress), given)


class _Decision(enum.Enum):
    """Sent by the leading process to the others that torchrun or srun has started."""

    TRAIN = enum.auto()
    FINISHED = enum.auto()
    REFUSED = enum.auto()  # also if it diverged, or if the leader failed


def _join_launched(
    folder: Path, recipe: Recipe, stage: Stage, given: Any, progress: Progress, inputs: Inputs | None
) -> Run:
    """Train in one of several processes started by torchrun or srun; only the leader claims the run."""
    machines, run = launch_env.machines(), Run(folder)
    # Call `training_settings` before the processes meet: the leader then records this start in the run's folder.
    fabric = _ddp_fabric(training_settings(recipe, run), launch_env.processes() // machines, machines)
    fabric.launch()
    if fabric.global_rank > 0:
        _follow(fabric, run, recipe, stage, given, progress)
        return run
    is_training = False
    try:
        with claim_run(folder, recipe, progress, inputs) as run:
            if run.is_finished:
                send_later(run, recipe, progress)
            else:
                fabric.broadcast(_Decision.TRAIN)
                is_training = True
                _carry_out(fabric, run, recipe, stage, given, progress)
    except BaseException as error:
        if isinstance(error, Diverged) or not is_training:  # otherwise the others are in the middle of a step
            fabric.broadcast(_Decision.REFUSED)
        raise
    fabric.broadcast(_Decision.FINISHED)
    return run


def _follow(fabric: Fabric, run: Run, recipe: Recipe, stage: Stage, given: Any, progress: Progress) -> None:
    """Wait for the leader's decision, and train if that is the decision."""
    decision = fabric.broadcast(None)
    if decision is _Decision.TRAIN:
        try:
            with contextlib.suppress(Diverged):  # the leader raises it too
                _carry_out(fabric, run, recipe, stage, given, progress)
            decision = fabric.broadcast(None)  # waits until the leader has finished the run
        except RuntimeError as error:  # of the process group if the leader has left it, or of this process
            reason = f"process {fabric.global_rank} of {fabric.world_size} ends: {shortened(str(error), 300)}"
            print_line(printable(f"emoreg: {run.folder}: {reason}"))
            raise  # the traceback shows which of the two it is
    if decision is _Decision.REFUSED:
        raise SystemExit(2)  # the leader prints the reason


def _spawn(run: Run, recipe: Recipe, stage: Stage, given: Any, progress: Progress) -> None:
    """Start one process per device, and wait for them."""
    import_fabric()
    from lightning_fabric.plugins.environments.lightning import find_free_network_port
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    training = recipe.training
    _check_spawn(run, training, given, progress)
    logging.getLogger(ProcessExitedException.__module__).setLevel(logging.ERROR)  # it warns when it ends a process
    quiet = Progress(progress.quiet or progress.is_showing, progress.details, progress.every)
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    others, port = set(multiprocessing.active_children()), find_free_network_port()
    try:
        with main_module.shared(), without_interrupts():
            arguments = (port, errors, run, recipe, stage, given, quiet)
            members: Any = start_processes(_spawned, arguments, training.devices, join=False, start_method="spawn")
        while not members.join():
            pass
    except ProcessRaisedException as error:
        raise (error if errors.empty() else errors.get()) from None
    except ProcessExitedException as error:
        if not errors.empty():
            raise errors.get() from None
        if error.exit_code == main_module.NO_GUARD:
            raise UserError(main_module.GUARD) from None
        raise UserError(
            f"{run.folder}: {error} (out of memory?); run the same command again to resume from the last epoch"
        ) from None
    except OSError as error:
        raise UserError(f"{training.devices} processes cannot start: {error.strerror or error}") from None
    finally:
        _end(set(multiprocessing.active_children()) - others)
    if not errors.empty():
        raise errors.get()


def _check_spawn(run: Run, training: TrainingSettings, given: Any, progress: Progress) -> None:
    """Raise UserError if processes cannot be started; print what may surprise users."""
    if multiprocessing.current_process().daemon:
        raise UserError(f"training.devices is {training.devices}: a study runs such runs one at a time (--jobs 1)")
    _require_sendable(given, training)
    if (note := main_module.without_guard()) is not None:
        progress.say(note)
    fabric = _ddp_fabric(training, training.devices, 1, is_spawned=True)  # refuses more devices than exist
    cores = allowed_cores()
    if fabric.device.type == "cpu" and training.devices > cores:
        progress.say(
            f"{run.folder.name}: training.devices is {training.devices}, and this process may use {cores} "
            f"core{'s' if cores > 1 else ''}: as many processes are as fast, and need less memory"
        )


def _end(children: Collection[BaseProcess]) -> None:
    """Ask processes to save a checkpoint and end, and wait for them; kill them on Ctrl-C."""
    for child in children:
        child.terminate()
    try:
        for child in children:
            child.join()
    finally:
        for child in children:
            child.kill()


def _spawned(
    rank: int,
    port: int,
    errors: SimpleQueue[UserError | Stopped],
    run: Run,
    recipe: Recipe,
    stage: Stage,
    given: Any,
    progress: Progress,
) -> None:
    """Main function of the processes that `_spawn` starts."""
    end_with_parent()
    heed_requests()
    devices = recipe.training.devices
    os.environ.update(NODE_RANK="0", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    threads = max(1, torch.get_num_threads() // devices)
    take_part(Fraction(1, devices))
    torch.set_num_threads(min(threads, usable_cores()))
    given = copy.deepcopy(given)  # its tensors arrive in memory that all processes share
    try:
        fabric = _ddp_fabric(training_settings(recipe, run), devices, 1, is_spawned=True)
        fabric.launch()
        _carry_out(fabric, run, recipe, stage, given, progress)
        distributed.destroy_process_group()  # otherwise its threads may outlive the main thread, which aborts
    except Stopped as stop:
        errors.put(stop)
    except UserError as error:
        errors.put(error)
        raise


def _require_sendable(given: Any, training: TrainingSettings) -> None:
    """Raise UserError for a user-supplied model or images that cannot be pickled, or not unpickled elsewhere."""
    what = f"training.devices is {training.devices}, but your own model or images"
    with Path(os.devnull).open("wb") as devnull:
        try:
            pickle.dump(given, devnull)
        except UNPICKLABLE as error:
            raise UserError(
                f"{what} cannot be sent to other processes ({error}): start the script with torchrun instead"
            ) from None
        if main_module.is_guarded():
            return
        try:
            with main_module.hidden():
                pickle.dump(given, devnull)
        except UNPICKLABLE:
            if main_module.script() is not None:
                raise UserError(f"{what} are defined in the script, and {main_module.GUARD}") from None
            raise UserError(
                f"{what} are defined in a notebook, in a console or on the standard input, where other processes do "
                "not find them: put them into a module and import it"
            ) from None


def _ddp_fabric(training: TrainingSettings, devices: int, machines: int, is_spawned: bool = False) -> Fabric:
    import_fabric()
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Some parameters may not affect the loss: those of λ with loss.regulated 0, or others of a user-supplied model. A
    # static graph allows this without searching for them in every step, if they are always the same.
    strategy = DDPStrategy(static_graph=True)
    plugins = [LightningEnvironment()] if is_spawned else []  # even within a SLURM job, which has one task
    try:
        return make_fabric(training, devices=devices, num_nodes=machines, strategy=strategy, plugins=plugins)
    except (RuntimeError, ValueError) as error:  # such as srun --ntasks without --ntasks-per-node
        raise UserError(f"{devices} processes on {machines} machines cannot start: {error}") from None
