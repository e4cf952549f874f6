"""Sharing the GPUs of this machine between several processes."""

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
USUAL_PIPES = "/tmp/nvidia-mps"  # where programs look for the service by default

# The service ends when its standard input is closed, and so with this process, even if that is killed.
KEEP = """
timeout 60 "$1" -d >"$2/started" 2>&1; echo $?
cat >/dev/null
echo quit | "$1" >/dev/null 2>&1
rm -rf "$2" 2>/dev/null
"""
# PyTorch's messages about CUDA errors continue with lines of general advice, which are dropped.
FIRST_USE = """
import sys, torch
try:
    torch.ones(1, device='cuda').sum().item()
except RuntimeError as error:
    sys.exit(str(error).partition(chr(10))[0])
"""
PATIENCE = 120.0  # seconds to wait for the first use of a GPU, and for the end of the service


@contextlib.contextmanager
def shared_gpus(processes: int, progress: Progress) -> Iterator[list[Mapping[str, str]]]:
    """Distribute the GPUs of this process among several processes: one GPU for each, all for a single process.

    If there are more processes than GPUs, NVIDIA's Multi-Process Service runs their kernels concurrently, if it is
    installed and works; otherwise processes take turns on a GPU.

    Args:
        processes: number of processes.
        progress: reports how GPUs are shared.

    Yields:
        The environment variables that each process needs before it uses a GPU; none if there are no GPUs to share.
    """
    gpus = _visible_gpus() if processes > 1 else []
    with contextlib.ExitStack() as stack:
        service: Mapping[str, str] = {}
        if gpus and processes > len(gpus):
            how, service = _service(stack)
            progress.say(f"{processes} runs at a time share {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} {how}")
        if service:
            gpus = [str(number) for number in range(len(gpus))]  # the service numbers its visible GPUs anew
        yield [{VISIBLE: gpus[number % len(gpus)], **service} if gpus else {} for number in range(processes)]


def _visible_gpus() -> list[str]:
    """Return the names or numbers of the visible GPUs, as in `VISIBLE`."""
    import torch

    count, listed = torch.cuda.device_count(), os.environ.get(VISIBLE)
    return listed.split(",")[:count] if listed else [str(number) for number in range(count)]


def _service(stack: contextlib.ExitStack) -> tuple[str, Mapping[str, str]]:
    """Start the service until the stack is closed, unless one was started earlier.

    Returns:
        A description of how GPUs are shared, and the environment variables for using the service; no variables if one
        was started earlier, or if it does not work.
    """
    if PIPES in os.environ or os.access(f"{USUAL_PIPES}/control", os.W_OK):  # it may be another user's
        return f"by {SERVICE}, if the one that was started earlier works", {}
    control = shutil.which(CONTROL)
    if control is None:
        return f"and take turns: {CONTROL}, by which they would run at the same time, is not installed", {}
    try:
        environment = stack.enter_context(_running(control))
    except (OSError, UserError) as error:
        return f"and take turns: {CONTROL} cannot be used here: {error}", {}
    return f"by {SERVICE}", environment


@contextlib.contextmanager
def _running(control: str) -> Iterator[Mapping[str, str]]:
    """Run the service, and yield the environment variables for it; raise UserError if it cannot be used."""
    folder = tempfile.mkdtemp(prefix="emoreg-mps-")  # short, since the length of socket names is limited
    environment = {PIPES: folder, LOGS: folder}
    service = subprocess.Popen(
        ["/bin/sh", "-c", KEEP, "sh", control, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,  # not ended by Ctrl-C, but by this process once the runs have been saved
    )
    try:
        assert service.stdout is not None
        if service.stdout.readline() != "0\n":
            reason = Path(folder, "started").read_text(encoding="utf-8", errors="replace").strip()
            raise UserError(reason or "no reason is given")
        _check_service(control, environment)
        yield environment
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.communicate(timeout=PATIENCE)


def _check_service(control: str, environment: Mapping[str, str]) -> None:
    """Raise UserError unless a process can use a GPU through the service; CUDA may silently work without it."""
    environment = os.environ | environment
    _run([sys.executable, "-c", FIRST_USE], environment | {VISIBLE: "0"})
    if not _run([control], environment, "get_server_list\n").strip():
        raise UserError("it serves no process")


def _run(command: list[str], environment: Mapping[str, str], stdin: str = "") -> str:
    """Run a program and return its output; raise UserError if it fails or does not end in time."""
    try:
        result = subprocess.run(
            command, check=False, input=stdin, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"no answer in {PATIENCE:g} s") from None
    if result.returncode:
        raise UserError(result.stderr.strip() or f"exit code {result.returncode}")
    return result.stdout
