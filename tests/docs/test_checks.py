"""Each long check runs nightly, has a row in docs/checks.md, and has a short form that every commit runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

import long_checks
from long_checks import CHECKS, PAGE, ROOT, keep, row


def rows() -> dict[str, str]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}


def test_the_page_has_an_up_to_date_row_for_each_check() -> None:
    assert list(rows()) == list(CHECKS)
    for name, line in rows().items():
        result = line.removesuffix(" |").rpartition(" | ")[2]
        assert line == row(name, result)


def test_the_nightly_workflow_runs_every_check() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["long"]
    assert job["strategy"]["matrix"]["check"] == list(CHECKS)
    assert "python tests/long_checks.py ${{ matrix.check }}" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize("name", CHECKS)
def test_the_script_and_the_short_form_exist(name: str) -> None:
    check = CHECKS[name]
    assert check.command[0] == "-m" or (ROOT / check.command[0]).is_file()
    assert (ROOT / check.short_form).is_file()


def test_every_script_in_tests_and_benchmarks_is_a_check() -> None:
    scripts = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py") if is_script(path)]
    commands = {ROOT / check.command[0] for check in CHECKS.values()}
    others = {"dying.py", "long_checks.py", "experience_left.py", "time_to_accuracy.py"}
    assert {path for path in scripts if path not in commands and path.name not in others} == set()


def is_script(path: Path) -> bool:
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    )


def test_a_new_result_replaces_the_last_one_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "checks.md"
    page.write_text("\n".join(["# Checks", row("kill", "1 of 2"), row("slow", "all")]) + "\n", encoding="utf-8")
    monkeypatch.setattr(long_checks, "PAGE", page)
    keep("kill", "2 of 2")
    lines = ["# Checks", row("kill", "2 of 2"), row("slow", "all")]
    assert page.read_text(encoding="utf-8").splitlines() == lines
