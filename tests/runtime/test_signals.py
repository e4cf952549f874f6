from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from emoreg.runtime.signals import SIGNALS, Stopped, deferred, leave_to_parent


class Pids(Dataset[torch.Tensor]):
    """Each item is the id of the process that loaded it."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> torch.Tensor:
        time.sleep(0.01)
        return torch.tensor(os.getpid())


@pytest.mark.parametrize("each", SIGNALS)
def test_workers_that_leave_requests_to_their_parent_continue(each: signal.Signals) -> None:
    loader = DataLoader(Pids(), num_workers=1, worker_init_fn=leave_to_parent)
    loaded = iter(loader)
    worker = int(next(loaded))
    assert worker != os.getpid()
    # Like a scheduler, from a process other than the parent.
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker}, {int(each)})"], check=True)
    assert [int(pid) for pid in loaded] == [worker] * 39


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_by_a_signal_of_the_process_that_started_them_though_a_fork_server_is_their_parent(
    method: str,
) -> None:
    loader = DataLoader(Pids(), num_workers=1, worker_init_fn=leave_to_parent, multiprocessing_context=method)
    loaded = iter(loader)
    next(loaded)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    worker.join(30)
    code = worker.exitcode
    worker.kill()  # if it has not ended: the loader would wait for it without end
    assert code == 0


LEAVES_A_LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from emoreg.runtime.signals import leave_to_parent
loaded = iter(DataLoader(TensorDataset(torch.arange(99)), num_workers=1, worker_init_fn=leave_to_parent))
next(loaded)
raise SystemExit(7)
"""


@pytest.mark.thorough
def test_a_process_that_ends_in_the_middle_of_an_epoch_does_not_wait_for_its_workers() -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES_A_LOADER], timeout=60, check=False)
    assert ended.returncode == 7


# A program that prints a line for each of two steps.
WORKS = """
import signal, sys, time
from emoreg.runtime.signals import Stopped, deferred, heed_requests
signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and a shell's background ignore them
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if sys.argv[1] == "command":
    heed_requests()
try:
    with deferred() as is_asked_to_stop:
        for step in range(2):
            print("step", flush=True)
            end = time.monotonic() + float(sys.argv[2])
            while time.monotonic() < end:
                time.sleep(0.01)
        print("saved" if is_asked_to_stop() else "done", flush=True)
    print("went on", flush=True)
except KeyboardInterrupt as error:
    at_once = isinstance(error, Stopped) and error.at_once
    print(type(error).__name__, getattr(error, "by", None) == signal.SIGINT, at_once, flush=True)
"""


def interrupted(kind: str, *signals: signal.Signals, seconds: float = 0.5) -> tuple[int, list[str]]:
    """Send signals, 0.3 s apart, in a program's first step; return its exit code and the lines printed after it."""
    program = [sys.executable, "-c", WORKS, kind, str(seconds)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "step\n"
    for each in signals:
        process.send_signal(each)
        time.sleep(0.3)
    told, _ = process.communicate(timeout=60)
    return process.returncode, told.splitlines()


@pytest.mark.parametrize("each", SIGNALS)
def test_a_request_lets_a_command_save_and_then_stops_it(each: signal.Signals) -> None:
    is_interrupt = each == signal.SIGINT
    assert interrupted("command", each) == (0, ["step", "saved", f"Stopped {is_interrupt} False"])


def test_ctrl_c_lets_a_script_or_a_notebook_save_and_is_then_a_keyboard_interrupt() -> None:
    assert interrupted("script", signal.SIGINT) == (0, ["step", "saved", "KeyboardInterrupt False False"])


def test_another_signal_lets_a_script_save_and_then_ends_it_as_it_would_have() -> None:
    assert interrupted("script", signal.SIGTERM) == (-signal.SIGTERM, ["step", "saved"])


@pytest.mark.parametrize("kind", ["command", "script"])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_another_request_ends_at_once(kind: str, first: signal.Signals) -> None:
    assert interrupted(kind, first, signal.SIGINT, seconds=30) == (0, ["Stopped True True"])


def test_a_signal_that_the_program_handles_itself_is_left_to_it() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with deferred() as is_asked_to_stop:
            signal.raise_signal(signal.SIGTERM)
            assert not is_asked_to_stop()
    finally:
        signal.signal(signal.SIGTERM, before[SIGNALS.index(signal.SIGTERM)])
    assert heard == [signal.SIGTERM] and [signal.getsignal(each) for each in SIGNALS] == before


def test_a_request_is_over_with_its_block_for_other_threads_too() -> None:
    """As in a notebook: Ctrl-C ends one training, and a thread starts the next one."""
    heard: list[bool] = []

    def work() -> None:
        with deferred() as is_asked_to_stop:
            heard.append(is_asked_to_stop())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), deferred():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]


def test_a_request_to_another_process_of_the_run_reaches_the_caller() -> None:
    with pytest.raises(Stopped) as caught, deferred():
        raise Stopped
    assert caught.value.by is None


def test_signals_that_a_command_was_started_to_ignore_stay_ignored() -> None:
    asks = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "from emoreg.runtime.signals import heed_requests; heed_requests();"
        "print(*(signal.getsignal(each) is signal.SIG_IGN for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
        == "True True False\n"
    )
