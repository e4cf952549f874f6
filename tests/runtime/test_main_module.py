"""Processes do not run the script again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from emoreg.runtime import main_module

SOURCE = Path(__file__).parents[2] / "src"
BODY = """\
import multiprocessing, sys
from emoreg.runtime import main_module
main_module.require_guard()
print("begun", flush=True)
with main_module.shared():
    process = multiprocessing.get_context("spawn").Process(target=print, args=("done",))
    process.start()
process.join()
print(process.exitcode, main_module.without_guard(), sys.modules["__main__"].__name__)
"""
GUARDED = "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in BODY.splitlines())
NOT_IMPORTED = 'script.py has no if __name__ == "__main__": so the processes that it starts do not import it'


def said(arguments: Sequence[str], folder: Path, given: str = "") -> list[str]:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(SOURCE)},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not ended.stderr, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    "how", ["a script", "the standard input", "a text", "a text that is run by another", "a console"]
)
def test_processes_of_a_script_without_a_guard_do_not_run_it_again(how: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(BODY)
    arguments, given = {
        "a script": (["script.py"], ""),
        "the standard input": (["-"], BODY),
        "a text": (["-c", BODY], ""),
        "a text that is run by another": (["-c", "exec(open('script.py').read(), {'__name__': 'x'})"], ""),
        "a console": (["-c", "import code; code.interact(banner='', exitmsg='')"], None),
    }[how]
    if given is None:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(SOURCE)},
            input="exec(open('script.py').read())\n",
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.removeprefix(">>> ") for line in ended.stdout.splitlines() if line.strip(" >")]
        assert "Traceback" not in ended.stderr
    else:
        lines = said(arguments, tmp_path, given)
    assert lines[:2] == ["begun", "done"] and lines[2].startswith("0 ") and lines[2].endswith("__main__")
    assert (NOT_IMPORTED in lines[2]) == (how == "a script") and len(lines) == 3


def test_a_package_run_with_m_is_not_imported_and_causes_no_note(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(BODY)
    assert said(["-m", "package"], tmp_path) == ["begun", "done", "0 None __main__"]


def test_a_script_with_a_guard_is_imported_for_what_it_registers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"print(__name__, flush=True)\n{GUARDED}")
    assert said(["script.py"], tmp_path) == ["__main__", "begun", "__mp_main__", "done", "0 None __main__"]


def test_a_script_that_calls_emoreg_outside_its_guard_ends_the_processes_silently(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"{BODY}if __name__ == '__main__':\n    pass\n")
    assert said(["script.py"], tmp_path) == ["begun", f"{main_module.NO_GUARD} None __main__"]


def test_a_process_started_by_another_library_gets_an_error_about_the_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(BODY.replace("with main_module.shared():", "if True:"))
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr.endswith(f"emoreg.errors.UserError: {main_module.GUARD}\n")
