"""How several processes share the GPUs of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

VISIBLE = "CUDA_VISIBLE_DEVICES"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
SERVICE = "NVIDIA's Multi-Process Service"
CONTROL = "nvidia-cuda-mps-control"
USUAL_PIPES = "/tmp/nvidia-mps"  # where programs look for a service without PIPES

# The service ends when standard input does, and so with this process, even if that is killed.
KEEP = """
timeout 60 "$1" -d >"$2/started" 2>&1; echo $?
cat >/dev/null
echo quit | "$1" >/dev/null 2>&1
rm -rf "$2" 2>/dev/null
"""
# What PyTorch says of an error of CUDA goes on with lines of general advice.
FIRST_USE = """
import sys, torch
try:
    torch.ones(1, device='cuda').sum().item()
except RuntimeError as error:
    sys.exit(str(error).partition(chr(10))[0])
"""
PATIENCE = 120.0  # seconds for a first use of a GPU, and for the end of the service


@contextlib.contextmanager
def shared_gpus(processes: int, progress: Progress) -> Iterator[list[Mapping[str, str]]]:
    """Within, several processes share the GPUs that this one may use: each uses one of them, a single one all.

    Where they are more than the GPUs, their kernels run at the same time by NVIDIA's Multi-Process Service, if it is
    there and works; otherwise a GPU does a little of one process after the other, as it does by itself.

    Args:
        processes: how many.
        progress: is told how they share a GPU.

    Yields:
        What each of them is to have in its environment before it uses a GPU; nothing where there is none to share.
    """
    gpus = _visible_gpus() if processes > 1 else []
    with contextlib.ExitStack() as stack:
        service: Mapping[str, str] = {}
        if gpus and processes > len(gpus):
            how, service = _service(stack)
            progress.say(f"{processes} runs at a time share {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} {how}")
        if service:
            gpus = [str(number) for number in range(len(gpus))]  # it numbers those that are visible to it
        yield [{VISIBLE: gpus[number % len(gpus)], **service} if gpus else {} for number in range(processes)]


def _visible_gpus() -> list[str]:
    """Their names or numbers, as `VISIBLE` lists them."""
    import torch

    count, listed = torch.cuda.device_count(), os.environ.get(VISIBLE)
    return listed.split(",")[:count] if listed else [str(number) for number in range(count)]


def _service(stack: contextlib.ExitStack) -> tuple[str, Mapping[str, str]]:
    """Start the service, which ends with the stack, unless one runs already.

    Returns:
        How GPUs are shared, in words; and what processes have in their environment to use the service, nothing where
        it does not work or is one that runs already.
    """
    if PIPES in os.environ or os.access(f"{USUAL_PIPES}/control", os.W_OK):  # it may be another user's
        return f"by {SERVICE}, if the one that was started before works", {}
    control = shutil.which(CONTROL)
    if control is None:
        return f"and take turns: {CONTROL}, by which they would run at the same time, is not installed", {}
    try:
        with contextlib.ExitStack() as started:
            environment = started.enter_context(_started(control))
            _try(control, environment)
            stack.push(started.pop_all())
    except (OSError, UserError) as error:
        reason = " ".join(str(error).split("\n")[-1].split())
        return f"and take turns: {CONTROL} cannot be used here: {reason}", {}
    return f"by {SERVICE}", environment


@contextlib.contextmanager
def _started(control: str) -> Iterator[Mapping[str, str]]:
    """Within, the service runs, for processes with this in their environment. UserError if it cannot be started."""
    folder = tempfile.mkdtemp(prefix="emoreg-mps-")  # short, as names of sockets have to be
    environment = {PIPES: folder, LOGS: folder}
    service = subprocess.Popen(
        ["/bin/sh", "-c", KEEP, "sh", control, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,  # Ctrl-C is for this process, which ends it when the runs have been saved
    )
    try:
        assert service.stdout is not None
        if service.stdout.readline() != "0\n":
            told = Path(folder, "started").read_text(encoding="utf-8", errors="replace").strip()
            raise UserError(told or "no reason is given")
        yield environment
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.communicate(timeout=PATIENCE)


def _try(control: str, environment: Mapping[str, str]) -> None:
    """UserError unless a process can use a GPU by the service; without it CUDA may go its own way, silently."""
    everything = os.environ | environment
    _run([sys.executable, "-c", FIRST_USE], everything | {VISIBLE: "0"})
    if not _run([control], everything, "get_server_list\n").strip():
        raise UserError("it serves no process")


def _run(command: list[str], environment: Mapping[str, str], told: str = "") -> str:
    """What a program prints. UserError if it fails, or does not end."""
    try:
        done = subprocess.run(
            command, check=False, input=told, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"no answer in {PATIENCE:g} s") from None
    if done.returncode:
        raise UserError(done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout
