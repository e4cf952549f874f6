"""The deprecated names of `emoreg.use`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from emoreg.use import MOVED, RENAMED


@pytest.mark.parametrize(
    ("old", "name", "place", "now"),
    [
        ("hub", "RegulatedModel", "export.hub", "RegulatedModel"),
        ("load", "load_run", "load", "load_run"),
        ("explain", "explain", "explain.explain", "explain"),
        ("explain", "project", "explain.projection", "project"),
        *((old, name, MOVED[old][0], now) for old, names in RENAMED.items() for name, now in names.items()),
    ],
)
def test_an_old_name_resolves_with_a_warning_that_names_the_new_one(old: str, name: str, place: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"emoreg\.use\.{old}\.{name} .* is emoreg\.inference\.{place}\.{now}"):
        resolved = getattr(importlib.import_module(f"emoreg.use.{old}"), name)
    assert resolved is getattr(importlib.import_module(f"emoreg.inference.{place}"), now)


@pytest.mark.parametrize("old", MOVED)
def test_every_old_module_has_a_new_place(old: str) -> None:
    for place in MOVED[old]:
        importlib.import_module(f"emoreg.inference.{place}")
    with pytest.raises(AttributeError, match=r"see Renamed in CHANGELOG\.md"):
        getattr(importlib.import_module(f"emoreg.use.{old}"), "nothing_of_this_name")  # noqa: B009


def test_nothing_is_imported_before_a_name_is_used() -> None:
    code = "import sys, emoreg.use.hub; assert not {'torch', 'emoreg.inference'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
