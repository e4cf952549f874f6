"""Run the checks that take too long for every commit. CI runs them nightly.

    python tests/long_checks.py                      # all of them, about two hours on two CPU cores
    python tests/long_checks.py kill malformed       # these two
    python tests/long_checks.py --keep kill          # write the result into docs/checks.md

Each check has a short form among the tests of every commit.
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
        what: what the check shows.
        command: arguments of Python, run from the repository root. It passes with exit code 0; its last line of output
            is the summary.
        short_form: test file that does a little of it at every commit.
        environment: environment variables of the command.
    """

    what: str
    command: tuple[str, ...]
    short_form: str
    environment: Mapping[str, str] = field(default_factory=dict)


CHECKS = {
    "kill": Check(
        "a command that is killed with `kill -9` and started again ends as if it had never been stopped",
        ("tests/reliability/kill.py", "--kills", "50"),
        "tests/reliability/test_kill.py",
    ),
    "malformed": Check(
        "malformed input ends in one line that names the place",
        ("tests/hostile/malformed.py",),
        "tests/hostile/test_malformed.py",
    ),
    "fuzz": Check(
        "parsers read or refuse whatever hypothesis generates, 2,000 inputs each",
        ("-m", "pytest", "tests/hostile/test_fuzz.py"),
        "tests/hostile/test_fuzz.py",
        {"EMOREG_FUZZ_EXAMPLES": "2000"},
    ),
    "coverage": Check(
        "parsers read or refuse what atheris finds by coverage, a minute each (`pip install atheris`)",
        ("tests/hostile/atheris_parsers.py", "all", "-max_total_time=60"),
        "tests/hostile/test_fuzz.py",
    ),
    "slow": Check(
        "runs over several processes, and all other tests marked slow",
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
        "our versions of earlier emotional networks, compared with their published results",
        ("benchmarks/relatives.py",),
        "tests/models/relatives/test_embp.py",
    ),
}


def run(check: Check) -> tuple[int, str, float]:
    """Run a check and print its output as it comes. Return its exit code, its last line and its minutes."""
    start, last = time.monotonic(), ""
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
    return process.returncode, last, (time.monotonic() - start) / 60


def row(name: str, result: str) -> str:
    """The row of a check in the table of docs/checks.md."""
    check = CHECKS[name]
    short = check.short_form
    command = " ".join((*(f"{key}={value}" for key, value in check.environment.items()), "python", *check.command))
    return f"| {name} | {check.what} | `{command}` | [{Path(short).name}](../{short}) | {result} |"


def keep(name: str, result: str) -> None:
    """Write the result of a check into docs/checks.md, replacing the one before."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    lines = [row(name, result) if line.startswith(f"| {name} |") else line for line in lines]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def revision() -> str:
    """The commit that is checked out, followed by + if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return described.stdout.strip()


def main() -> int:
    """Run the requested checks. Return 1 if one of them fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CHECKS)}; default: all")
    parser.add_argument("--keep", action="store_true", help="write the results into docs/checks.md")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CHECKS]
    if unknown:
        parser.error(f"unknown check: {', '.join(unknown)}; choose from {', '.join(CHECKS)}")
    commit, has_failed = revision(), False
    for name in options.names or CHECKS:
        print(f"== {name}: {CHECKS[name].what}", flush=True)
        code, last, minutes = run(CHECKS[name])
        has_failed = has_failed or code != 0
        verdict = f"FAILED ({code})" if code else "passed"
        result = f"{verdict}: {last} ({date.today()}, {commit}, {minutes:.0f} min)"
        print(f"== {name}: {result}", flush=True)
        if options.keep:
            keep(name, result.replace("|", "/"))
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
