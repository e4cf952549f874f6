"""The checks that take too long for every commit, in one place: run by name, nightly in CI, and their last results.

    python tests/long_checks.py                      # all of them, about two hours on two CPU cores
    python tests/long_checks.py kill malformed       # these
    python tests/long_checks.py --keep kill          # and write the result into docs/checks.md

Every one has a short form among the tests of every commit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "checks.md"


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        what: it shows.
        command: of Python, in the folder of the repository. Its exit code is the verdict, its last line the summary.
        short_form: the tests that do a little of it at every commit.
        environment: variables of the command.
    """

    what: str
    command: tuple[str, ...]
    short_form: str
    environment: Mapping[str, str] = field(default_factory=dict)


CHECKS = {
    "kill": Check(
        "what is killed with `kill -9` and started again ends as if it had never been stopped",
        ("tests/reliability/kill.py", "--kills", "50"),
        "tests/reliability/test_kill.py",
    ),
    "malformed": Check(
        "malformed input ends in one line that names the place",
        ("tests/hostile/malformed.py",),
        "tests/hostile/test_malformed.py",
    ),
    "fuzz": Check(
        "parsers meet whatever hypothesis makes up, 2,000 times each",
        ("-m", "pytest", "tests/hostile/test_fuzz.py"),
        "tests/hostile/test_fuzz.py",
        {"EMOREG_FUZZ_EXAMPLES": "2000"},
    ),
    "coverage": Check(
        "parsers meet what atheris finds by coverage, a minute each (`pip install atheris`)",
        ("tests/hostile/atheris_parsers.py", "all", "-max_total_time=60"),
        "tests/hostile/test_fuzz.py",
    ),
    "slow": Check(
        "runs over several processes, and what else is marked slow",
        ("-m", "pytest", "-m", "slow"),
        "tests/training/test_launch.py",
    ),
    "simulations": Check(
        "error rates, coverage and power of the statistics, over 20,000 simulated studies",
        ("benchmarks/simulations.py",),
        "tests/benchmarks/test_benchmarks.py",
    ),
    "speed": Check(
        "speed, as ratios to the usual recipe and to the plain backbone",
        ("benchmarks/speed.py",),
        "tests/benchmarks/test_benchmarks.py",
    ),
    "accuracy": Check(
        "emoreg's fast path learns what the usual recipe learns",
        ("benchmarks/accuracy.py",),
        "tests/benchmarks/test_benchmarks.py",
    ),
    "relatives": Check(
        "what was published of earlier emotional networks, and what ours do",
        ("benchmarks/relatives.py",),
        "tests/models/relatives/test_embp.py",
    ),
}


def run(check: Check) -> tuple[int, str, float]:
    """Exit code, last line, and minutes; what it prints is seen as it comes."""
    begun, last = time.monotonic(), ""
    with subprocess.Popen(
        [sys.executable, *check.command],
        cwd=ROOT,
        env=os.environ | check.environment,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last, (time.monotonic() - begun) / 60


def row(name: str, seen: str) -> str:
    """The line of a check in the table of docs/checks.md."""
    check = CHECKS[name]
    short = check.short_form
    command = " ".join((*(f"{key}={value}" for key, value in check.environment.items()), "python", *check.command))
    return f"| {name} | {check.what} | `{command}` | [{Path(short).name}](../{short}) | {seen} |"


def keep(name: str, seen: str) -> None:
    """Write what was seen into the page, in place of what stood there."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    lines = [row(name, seen) if line.startswith(f"| {name} |") else line for line in lines]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def revision() -> str:
    """Of the repository, with + if files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()


def main() -> int:
    """Run those that are asked for. 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKS)}; all if none is given")
    parser.add_argument("--keep", action="store_true", help="write the results into docs/checks.md")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in CHECKS]:
        parser.error(f"no check is called {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    at, failed = revision(), []
    for name in options.names or CHECKS:
        print(f"== {name}: {CHECKS[name].what}", flush=True)
        code, last, minutes = run(CHECKS[name])
        seen = f"{'passed' if code == 0 else f'FAILED ({code})'}: {last} ({date.today()}, {at}, {minutes:.0f} min)"
        print(f"== {name}: {seen}", flush=True)
        if code:
            failed.append(name)
        if options.keep:
            keep(name, seen.replace("|", "/"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
