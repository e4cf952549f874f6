"""Runs on one device, or on several with one process each, on one machine or several (Fabric's DDP).

Every process takes its share of each batch, in the order and with the augmentation that a single process would give
it; gradients are averaged. The leading process, of rank 0, alone writes, measures and prints.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import io
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
from emoreg.runtime.streams import tell
from emoreg.training.fabric import make_fabric, resolve_precision, settled

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import SimpleQueue

    from lightning_fabric import Fabric

R = TypeVar("R", PretrainRecipe, TrainRecipe)


@dataclass(frozen=True)
class RunContext(Generic[R]):
    """A run as one of its processes sees it.

    Args:
        fabric: device and precision, and the other processes.
        run: where checkpoint, metrics and weights are written, by the leading process only.
        recipe: all settings.
        track: sends all rows so far to the trackers; does nothing in the other processes.
        progress: for people; silent in the other processes.
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
            device = self.fabric.device
            precision = resolve_precision(settled(self.recipe, self.run), device.type)
            processes = self.fabric.world_size
            lr = self.recipe.optimizer.peak_lr(self.recipe.training.batch_size)
            resolved = {"device": str(device), "precision": precision, "processes": processes, "lr": lr}
            self.run.record_session(resolved | facts)


# What pickle raises, by the kind of object that it cannot write.
UNPICKLABLE = (AttributeError, TypeError, pickle.PicklingError)
# A stage of the method: trains the run of a context with what its caller gave (own images, an own model).
Stage = Callable[[RunContext[Any], Any], None]


def launch(
    folder: Path | str, recipe: Recipe, stage: Stage, given: Any, progress: Progress, inputs: Inputs | None = None
) -> Run:
    """Finish the run of `recipe` in `folder` on the devices that it asks for; a finished run is returned as it is.

    What the caller draws afterwards does not depend on how much was left to train: global generators are as they were.

    Args:
        folder: run folder.
        recipe: training.devices is the number of processes, unless torchrun or srun has started them.
        stage: a function of a module, so that other processes find it by its name.
        given: passed on to `stage`; other processes get a copy.
        progress: passed on to `stage`.
        inputs: as for `claim_run`.

    Raises:
        UserError: as `claim_run`; fewer devices than asked for; one of the processes has died; mpirun or the like has
            started several; a script without a main guard, where it needs one.
    """
    folder = path_of(folder, "out")
    main_module.require_guard()
    launch_env.refuse_other_launchers("start a run with torchrun or srun, or once, with training.devices")
    with generators_kept():
        if launch_env.processes() > 1:
            return _join_launched(folder, recipe, stage, given, progress, inputs)
        return _launch_here(folder, recipe, stage, given, progress, inputs)


def _launch_here(
    folder: Path, recipe: Recipe, stage: Stage, given: Any, progress: Progress, inputs: Inputs | None
) -> Run:
    """From the one process that is there: it trains, or the processes that it starts do."""
    with claim_run(folder, recipe, progress, inputs) as run, _determinism_restored():
        if run.is_finished:
            send_later(run, recipe, progress)
        elif recipe.training.devices > 1:
            _spawn(run, recipe, stage, given, progress)
        else:
            _carry_out(make_fabric(settled(recipe, run)), run, recipe, stage, given, progress)
    return run


@contextlib.contextmanager
def _determinism_restored() -> Iterator[None]:
    """Afterwards PyTorch's deterministic algorithms, which training.deterministic asks for, are as they were."""
    is_on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_on, warn_only=warns)


def _carry_out(fabric: Fabric, run: Run, recipe: Any, stage: Stage, given: Any, progress: Progress) -> None:
    """This process's part of a run."""
    if fabric.global_rank > 0:
        stage(RunContext(fabric, run, recipe, _track_nothing, Progress(quiet=True)), given)
        return
    if (line := _other_precision(run, recipe, fabric.device.type)) is not None:
        progress.say(line)
    with tracked(run, recipe, progress) as track:
        stage(RunContext(fabric, run, recipe, track, progress), given)


def _other_precision(run: Run, recipe: Recipe, device: str) -> str | None:
    """That a run goes on in another precision than it would begin in here, in a line; None if it does not."""
    own, here = (resolve_precision(training, device) for training in (settled(recipe, run), recipe.training))
    if own == here or not run.has_begun:
        return None
    slow = ", in which this device does not compute: it will be slow" if own == "bf16-mixed" else ""
    return f"{run.folder.name}: was begun in {own} and goes on in it{slow} (training.precision auto is {here} here)"


def _track_nothing(rows: Any) -> None:
    """The leading process alone sends rows to trackers."""


class _Decision(enum.Enum):
    """What the leading process tells the others that torchrun or srun has started."""

    TRAIN = enum.auto()
    FINISHED = enum.auto()
    REFUSED = enum.auto()  # or diverged, or ended by an error of the leader's own


def _join_launched(
    folder: Path, recipe: Recipe, stage: Stage, given: Any, progress: Progress, inputs: Inputs | None
) -> Run:
    """In one of several processes started by torchrun or srun: the leader claims the run, all train it."""
    machines = launch_env.machines()
    run = Run(folder)
    # Before the others can be behind the leader, who records this start in the run's folder.
    fabric = _ddp_fabric(settled(recipe, run), launch_env.processes() // machines, machines)
    fabric.launch()
    if fabric.global_rank > 0:
        decision = fabric.broadcast(None)
        if decision is _Decision.TRAIN:
            try:
                with contextlib.suppress(Diverged):  # the leader has it too
                    _carry_out(fabric, run, recipe, stage, given, progress)
                decision = fabric.broadcast(None)  # waits for the leader's measurements, to return a finished run too
            except RuntimeError as error:  # a process group's, if the leader has left it, or this process's own
                reason = f"process {fabric.global_rank} of {fabric.world_size} ends: {shortened(str(error), 300)}"
                tell(printable(f"emoreg: {folder}: {reason}"))
                raise  # where it arose tells which of the two it is
        if decision is _Decision.REFUSED:
            raise SystemExit(2)  # the leader prints what it has refused
        return run
    has_begun = False
    try:
        with claim_run(folder, recipe, progress, inputs) as run:
            if run.is_finished:
                send_later(run, recipe, progress)
            else:
                fabric.broadcast(_Decision.TRAIN)
                has_begun = True
                _carry_out(fabric, run, recipe, stage, given, progress)
    except BaseException as error:
        if isinstance(error, Diverged) or not has_begun:  # else the others are in the midst of a step
            fabric.broadcast(_Decision.REFUSED)
        raise
    fabric.broadcast(_Decision.FINISHED)
    return run


def _spawn(run: Run, recipe: Recipe, stage: Stage, given: Any, progress: Progress) -> None:
    """Start one process per device, and wait for them."""
    import_fabric()
    from lightning_fabric.plugins.environments.lightning import find_free_network_port
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    training = recipe.training
    if multiprocessing.current_process().daemon:
        raise UserError(f"training.devices is {training.devices}: a study runs such runs one at a time (--jobs 1)")
    _require_sendable(given, training)
    if (note := main_module.without_guard()) is not None:
        progress.say(note)
    fabric = _ddp_fabric(training, training.devices, 1, is_spawned=True)  # refuses more devices than there are
    if fabric.device.type == "cpu" and training.devices > (cores := allowed_cores()):
        progress.say(
            f"{run.folder.name}: training.devices is {training.devices}, and this process may use {cores} "
            f"core{'s' if cores > 1 else ''}: as many processes are as fast, and need less memory"
        )
    logging.getLogger(ProcessExitedException.__module__).setLevel(logging.ERROR)  # it warns of each process it ends
    quiet = Progress(progress.quiet or progress.is_showing, progress.details, progress.every)
    ends = multiprocessing.get_context("spawn").SimpleQueue()
    others, port = set(multiprocessing.active_children()), find_free_network_port()
    try:
        with main_module.shared(), without_interrupts():
            arguments = (port, ends, run, recipe, stage, given, quiet)
            members: Any = start_processes(_spawned, arguments, training.devices, join=False, start_method="spawn")
        while not members.join():
            pass
    except (ProcessRaisedException, ProcessExitedException) as error:
        if not ends.empty():
            raise ends.get() from None
        if isinstance(error, ProcessRaisedException):
            raise
        if error.exit_code == main_module.NO_GUARD:
            raise UserError(main_module.GUARD) from None
        raise UserError(
            f"{run.folder}: {error} (out of memory?); run the same command again to resume from the last epoch"
        ) from None
    except OSError as error:
        raise UserError(f"{training.devices} processes cannot start: {error.strerror or error}") from None
    finally:
        _end(set(multiprocessing.active_children()) - others)
    if not ends.empty():
        raise ends.get()


def _end(children: Collection[BaseProcess]) -> None:
    """End processes in order, which save a checkpoint; Ctrl-C in the meantime ends them at once."""
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
    ends: SimpleQueue[UserError | Stopped],
    run: Run,
    recipe: Recipe,
    stage: Stage,
    given: Any,
    progress: Progress,
) -> None:
    """The main function of a process that `_spawn` has started."""
    end_with_parent()
    heed_requests()
    devices = recipe.training.devices
    os.environ.update(NODE_RANK="0", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    threads = max(1, torch.get_num_threads() // devices)
    take_part(Fraction(1, devices))
    torch.set_num_threads(min(threads, usable_cores()))
    given = copy.deepcopy(given)  # the tensors that arrive are in memory that all processes share
    try:
        fabric = _ddp_fabric(settled(recipe, run), devices, 1, is_spawned=True)
        fabric.launch()
        _carry_out(fabric, run, recipe, stage, given, progress)
        distributed.destroy_process_group()  # else its threads may still run when the process ends, which aborts it
    except Stopped as stop:
        ends.put(stop)
    except UserError as error:
        ends.put(error)
        raise


def _require_sendable(given: Any, training: TrainingSettings) -> None:
    """UserError for an own model or own images that cannot be sent to another process, or are unknown there."""
    what = f"training.devices is {training.devices}, but your own model or images"
    try:
        pickle.Pickler(_Nowhere()).dump(given)
    except UNPICKLABLE as error:
        raise UserError(
            f"{what} cannot be sent to other processes ({error}): start the script with torchrun instead"
        ) from None
    if main_module.is_guarded():
        return
    try:
        with main_module.hidden():
            pickle.Pickler(_Nowhere()).dump(given)
    except UNPICKLABLE:
        if main_module.script() is not None:
            raise UserError(f"{what} are defined in the script, and {main_module.GUARD}") from None
        raise UserError(
            f"{what} are defined in a notebook, in a console or on the standard input, where other processes do not "
            "find them: put them into a module and import it"
        ) from None


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def write(self, content: Any) -> int:
        return len(content)


def _ddp_fabric(training: TrainingSettings, devices: int, machines: int, is_spawned: bool = False) -> Fabric:
    import_fabric()
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Parameters may have no part in the loss: loss.regulated 0 leaves out λ's, a user's model may have others. A static
    # graph allows this if they are the same in every step, without a search of the graph in each.
    strategy = DDPStrategy(static_graph=True)
    plugins = [LightningEnvironment()] if is_spawned else []  # also within a job of SLURM, which has one task
    try:
        return make_fabric(training, devices=devices, num_nodes=machines, strategy=strategy, plugins=plugins)
    except (RuntimeError, ValueError) as error:  # such as srun --ntasks without --ntasks-per-node
        raise UserError(f"{devices} processes on {machines} machines cannot start: {error}") from None
