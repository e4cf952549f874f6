"""What pyproject.toml, CITATION.cff and constraints/lowest.txt say of the same things agrees."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import emoreg

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normalised(name: str) -> str:
    return name.lower().replace("_", "-")


def test_the_version_is_written_once_and_the_citation_agrees() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"] == {"path": "src/emoreg/__init__.py"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == emoreg.__version__


def test_the_lowest_versions_that_are_tested_are_those_that_are_declared() -> None:
    declared = {}
    for requirement in PROJECT["project"]["dependencies"]:
        found = re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
        assert found is not None, f"{requirement} has no lower bound"
        declared[normalised(found[1])] = found[2]
    lines = (ROOT / "constraints" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tested.keys() == declared.keys()
    for name, version in declared.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", tested[name]), name


def test_every_extra_is_installed_for_the_tests() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.findall(r"\w+", everything)) - {"emoreg"} == extras.keys() - {"all", "docs", "test", "dev"}
    assert "emoreg[all,docs,test]" in extras["dev"]
