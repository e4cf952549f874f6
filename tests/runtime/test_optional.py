from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from emoreg.runtime.optional import import_fabric, importing, is_installed
from refusing import refusal


def importing_it() -> None:
    with importing("an_extra", "the demo", "'emoreg[demo]'"):
        importlib.import_module("an_extra")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import no_such_part", "ModuleNotFoundError: No module named 'no_such_part'"),
        ("raise ImportError('Using SOCKS proxy, but ...')", "ImportError: Using SOCKS proxy, but ..."),
        ("int('abc')", "ValueError: invalid literal for int() with base 10: 'abc'"),
        ("open('/no/such/certificates.pem')", "FileNotFoundError: [Errno 2] No such file or directory"),
    ],
)
def test_an_installed_package_that_cannot_be_imported_is_not_reported_as_missing(
    content: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "an_extra.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    told = refusal(importing_it)
    assert f"the demo needs an_extra, which is installed but cannot be imported: {reason}" in told
    assert "pip install" not in told


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "the demo needs an_extra: pip install 'emoreg[demo]'"
    assert refusal(importing_it) == told
    (tmp_path / "an_extra").mkdir()  # such as W&B's folder "wandb", or a user's folder "datasets"
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(importing_it) == told and not is_installed("an_extra") and is_installed("pytest")


def test_fabric_is_imported_without_torchmetrics_which_can_be_imported_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {
        "lightning_fabric": "try:\n    import torchmetrics\nexcept ImportError:\n    torchmetrics = None\n",
        "torchmetrics": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.setitem(sys.modules, name, sys)  # so that earlier imports are restored
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    import_fabric()
    assert sys.modules["lightning_fabric"].torchmetrics is None
    assert importlib.import_module("torchmetrics") is sys.modules["torchmetrics"]
