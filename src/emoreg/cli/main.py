"""The command line: `main`, its commands, and how errors are reported.

A command is a typed function that calls the library and prints; `parser` builds its options from its signature and
docstring. Modules of this package import heavy libraries only inside functions.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence

from emoreg import __version__
from emoreg.cli.data import DATA, diffuse, pack
from emoreg.cli.export import demo, export
from emoreg.cli.inference import calibrate, explain, predict
from emoreg.cli.parser import Group, find, group_parser, run
from emoreg.cli.quickstart import quickstart
from emoreg.cli.report import power, report, results
from emoreg.cli.runs import RUNS
from emoreg.cli.stages import evaluate, pretrain, train
from emoreg.cli.study import study
from emoreg.cli.suites import suites
from emoreg.cli.sweep import sweep
from emoreg.errors import UserError, printable
from emoreg.runtime import launch_env
from emoreg.runtime.signals import Stopped, heed_requests, ignore_requests
from emoreg.runtime.streams import StdoutError, close_streams, open_streams, print_line

EMOREG = Group(
    "Emotional Regulation for image classification (arXiv:2606.13081): give a network an emotional experience, train "
    "regulated classifiers, and find out whether the emotion is what helps.",
    {
        "quickstart": quickstart,
        "pretrain": pretrain,
        "train": train,
        "evaluate": evaluate,
        "calibrate": calibrate,
        "predict": predict,
        "explain": explain,
        "export": export,
        "demo": demo,
        "study": study,
        "suites": suites,
        "report": report,
        "results": results,
        "power": power,
        "sweep": sweep,
        "runs": RUNS,
        "data": DATA,
    },
    (
        "emoreg quickstart",
        "emoreg pretrain recipes/experience/oasis-resnet20.yaml --stimuli.root oasis.zip",
        "emoreg train recipes/cifar10/resnet20-learn-e-reg.yaml",
        "emoreg evaluate runs/cifar10-resnet20-learn-e-reg-seed0",
        "emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg",
        "emoreg export runs/cifar10-resnet20-learn-e-reg-seed0 --to my-model --format hub",
        "emoreg study recipes/studies/cifar10-pilot.yaml --dry-run",
        "emoreg report runs/cifar10-pilot",
        "emoreg data list",
        "emoreg COMMAND --help",
    ),
)
RESUMABLE = (quickstart, pretrain, train, study, suites, sweep, pack, diffuse)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: command and options; None for the arguments of the process.

    Returns:
        The exit code: 0, 1 for problems found in data or failed runs, 2 for bad input, 130 when interrupted, 141 for a
        closed pipe, 143 when stopped by SIGTERM, SIGUSR1 or SIGHUP.
    """
    is_process = arguments is None
    if is_process:
        open_streams()
        heed_requests()
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments, is_process)
        finally:
            close_streams()  # here, not when Python exits, which would print a traceback
    except StdoutError as error:
        if error.errno == errno.EPIPE:  # the reader of our output, such as head, has closed it
            return 141
        print_line(f"emoreg: stdout cannot be written: {error.strerror}; send it elsewhere, as in > FILE")
        return 2


def _run(arguments: Sequence[str], is_process: bool) -> int:
    command = None
    try:
        try:
            command, prog, rest = find(EMOREG, "emoreg", arguments)
            return _help(command, prog, rest) if isinstance(command, Group) else run(command, prog, rest)
        finally:
            if is_process:
                ignore_requests()
    except UserError as error:
        print_line(f"emoreg (process {launch_env.rank()}): {error}" if launch_env.rank() else f"emoreg: {error}")
        return 2
    except KeyboardInterrupt as error:
        by_signal = isinstance(error, Stopped) and error.by != signal.SIGINT
        hint = ""
        if command in RESUMABLE:
            hint = "; run the same command again to resume"
            if isinstance(error, Stopped) and error.at_once:
                hint = " at once; run the same command again to resume from what was saved before"
        print_line(f"emoreg: {'stopped by a signal' if by_signal else 'interrupted'}{hint}")
        return 143 if by_signal else 130
    except StdoutError:
        raise
    except OSError as error:  # such as a full or read-only disk
        where = f": {error.filename}" if error.filename else ""
        print_line(printable(f"emoreg: {error.strerror or error}{where}"))
        return 2


def _help(group: Group, prog: str, arguments: Sequence[str]) -> int:
    parser = group_parser(group, prog)
    if group is EMOREG:
        parser.add("--version", action="store_true", help="print the version and exit")
    if parser.parse(arguments).get("version"):
        print(f"emoreg {__version__}")
    else:
        parser.print_help()
    return 0
