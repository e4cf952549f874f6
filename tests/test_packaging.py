"""pyproject.toml, CITATION.cff and constraints/lowest.txt agree on versions and extras."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import emoreg
from extras import MODULES

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normalised(name: str) -> str:
    return name.lower().replace("_", "-")


def test_the_version_is_written_once_and_the_citation_agrees() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"] == {"path": "src/emoreg/__init__.py"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == emoreg.__version__


def test_the_tested_lowest_versions_are_the_declared_ones() -> None:
    declared = {}
    for requirement in PROJECT["project"]["dependencies"]:
        match = re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
        assert match is not None, f"{requirement} has no lower bound"
        declared[normalised(match[1])] = match[2]
    lines = (ROOT / "constraints" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tested.keys() == declared.keys()
    for name, version in declared.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", tested[name]), name


def test_the_extra_all_has_every_extra_and_dev_includes_it() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    of_users = extras.keys() - {"all", "docs", "test", "dev"}
    assert set(re.findall(r"\w+", everything)) - {"emoreg"} == of_users == MODULES.keys()
    assert "emoreg[all,docs,test]" in extras["dev"]


def test_a_test_that_is_not_marked_extra_can_import_none() -> None:
    for name in (name for names in MODULES.values() for name in names):
        with pytest.raises(ImportError):
            importlib.import_module(name)
