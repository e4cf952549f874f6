"""One run on one device, or shared by several: a process each, of one machine or of several (Fabric's DDP).

Every process takes its share of each batch, in the order and with the augmentation that one process would give it;
gradients are averaged. The first process, of rank 0, leads: it alone writes, measures and prints.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from emoreg.config.schema import Recipe, TrainingSettings
from emoreg.errors import UserError
from emoreg.runs.run import Run, carry_out
from emoreg.runs.trackers import Track, send_later, tracked
from emoreg.runtime import launch_env
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import Stopped, heed_requests
from emoreg.training.loop import make_fabric, prepare_process

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BEGUN, FINISHED, REFUSED = "begun", "finished", "refused"  # what the first process says to the others

# What a stage does: (fabric, run, recipe, what the caller gave, track, progress).
Work = Callable[["Fabric", Run, Any, Any, Track, Progress], None]


def carry_out_on_devices(folder: Path | str, recipe: Recipe, work: Work, given: Any, progress: Progress) -> Run:
    """The run of `recipe` in `folder`, done by `work` on the devices that are asked for, unless it is finished.

    Args:
        folder: of the run.
        recipe: training.devices says how many processes there are, unless torchrun or srun has started them.
        work: of a module, so that other processes find it by its name.
        given: passed on to `work`; other processes get a copy.
        progress: passed on to `work`; silent but in the leading process.

    Raises:
        UserError: as `carry_out`; or there are not as many devices; or one of the processes has died.
    """
    training, was_finished = recipe.training, Run(Path(folder)).is_finished
    if launch_env.processes() > 1:
        return _in_step(folder, recipe, work, given, progress)

    def alone(run: Run) -> None:
        fabric = make_fabric(training)
        with tracked(run, recipe, progress) as track:
            work(fabric, run, recipe, given, track, progress)

    def spread(run: Run) -> None:
        _spawn(training, work, run, recipe, given, progress)

    run = carry_out(folder, recipe, spread if training.devices > 1 else alone, progress)
    if was_finished:
        send_later(run, recipe, progress)
    return run


def _in_step(folder: Path | str, recipe: Recipe, work: Work, given: Any, progress: Progress) -> Run:
    """In a process that was launched as one of several: the first decides what is to be done, all do it."""
    fabric = _fabric(recipe.training, launch_env.processes() // launch_env.machines(), launch_env.machines(), "popen")
    fabric.launch()
    if fabric.global_rank > 0:
        decision = fabric.broadcast("")
        if decision == REFUSED:
            raise SystemExit(2)  # the first process says why
        if decision == BEGUN:
            work(fabric, Run(Path(folder), writes=False), recipe, given, _ignore, Progress(quiet=True))
        fabric.barrier()
        return Run(Path(folder))

    decision = REFUSED

    def lead(run: Run) -> None:
        nonlocal decision
        decision = fabric.broadcast(BEGUN)
        with tracked(run, recipe, progress) as track:
            work(fabric, run, recipe, given, track, progress)

    try:
        run = carry_out(folder, recipe, lead, progress)
        decision = decision if decision == BEGUN else fabric.broadcast(FINISHED)
    finally:
        if decision == REFUSED:
            fabric.broadcast(REFUSED)
    if decision == FINISHED:
        send_later(run, recipe, progress)
    fabric.barrier()  # the others wait for the test images, so that the run is finished for them too
    return run


def _spawn(training: TrainingSettings, work: Work, run: Run, recipe: Recipe, given: Any, progress: Progress) -> None:
    """Start a process a device, and wait for them."""
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    if multiprocessing.current_process().daemon:
        raise UserError(f"training.devices is {training.devices}: a study runs such runs one at a time (--jobs 1)")
    fabric = _fabric(training, training.devices, 1, "spawn")
    logging.getLogger(ProcessExitedException.__module__).setLevel(logging.ERROR)  # who is ended when one has failed
    quiet = Progress(progress.quiet or progress.is_showing, progress.details, progress.every)
    others, port = set(multiprocessing.active_children()), os.environ.get("MASTER_PORT")
    try:
        member = partial(_member, work=work, run=run, recipe=recipe, given=given, progress=quiet)
        if fabric.launch(member) == "stopped":
            raise Stopped
    except ProcessRaisedException as error:
        told = re.search(r"^emoreg\.errors\.UserError: (.*)$", str(error), re.MULTILINE)
        if told is None:
            raise
        raise UserError(told[1]) from None
    except ProcessExitedException as error:
        how = " ".join(str(error).split())
        raise UserError(f"{run.folder}: {how} (out of memory?); the same command goes on from the last epoch") from None
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        if "pickle" not in str(error):
            raise
        raise UserError(
            f"training.devices is {training.devices}, but your own model cannot be sent to other processes ({error}): "
            "start the script with torchrun instead"
        ) from None
    finally:
        if port is None:
            os.environ.pop("MASTER_PORT", None)  # Fabric's; the next run takes a free one
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()  # it saves where it is
            child.join()
    if given is not None and isinstance(given, torch.nn.Module):
        given.load_state_dict(run.weights()[0])  # the processes have trained copies


def _member(fabric: Fabric, work: Work, run: Run, recipe: Recipe, given: Any, progress: Progress) -> str:
    """The life of a process that `_spawn` has started: how it ended."""
    heed_requests()
    prepare_process(recipe.training, fabric.device.type)
    given = copy.deepcopy(given)  # the tensors that came are in memory that all processes share
    try:
        if fabric.global_rank == 0:
            with tracked(run, recipe, progress) as track:
                work(fabric, run, recipe, given, track, progress)
        else:
            work(fabric, Run(run.folder, writes=False), recipe, given, _ignore, Progress(quiet=True))
    except Stopped:
        return "stopped"
    return "done"


def _fabric(training: TrainingSettings, devices: int, nodes: int, start: Literal["popen", "spawn"]) -> Fabric:
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Parameters may have no part in the loss: loss.regulated 0 leaves out λ's, a user's model may have others. DDP
    # bears that if they are the same in every step, and without a search of the graph in each.
    strategy = DDPStrategy(start_method=start, static_graph=True)
    plugins = [LightningEnvironment()] if start == "spawn" else []  # also within a job of SLURM, which has one task
    try:
        return make_fabric(training, devices=devices, num_nodes=nodes, strategy=strategy, plugins=plugins)
    except (RuntimeError, ValueError) as error:  # such as srun --ntasks without --ntasks-per-node
        raise UserError(
            f"{devices} processes on {nodes} machines cannot begin: {' '.join(str(error).split())}"
        ) from None


def _ignore(rows: Any) -> None:
    """The leading process alone tells the trackers."""
