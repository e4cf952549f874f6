from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import emoreg

HEAVY = ("torch", "timm", "numpy", "pandas", "matplotlib", "sklearn", "lightning_fabric", "rich", "PIL")


def imported_by(statements: str) -> set[str]:
    script = f"import sys\n{statements}\nprint('modules:', *sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.rpartition("modules:")[2].split())


def test_every_public_name_exists_and_is_documented() -> None:
    assert emoreg.__all__ == sorted(emoreg.__all__)
    for name in emoreg.__all__:
        public = getattr(emoreg, name)
        assert public.__name__ == name and public.__doc__
        assert name in dir(emoreg)


def test_type_checkers_see_each_public_name_at_the_place_it_is_imported_from() -> None:
    tree = ast.parse(Path(emoreg.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    seen = {name.asname: (node.module, name.name) for node in imports for name in node.names}
    assert seen == {name: (f"emoreg.{home}", name) for name, home in emoreg._HOMES.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'emoreg' has no attribute 'pretain'"):
        _ = emoreg.pretain
    assert not hasattr(emoreg, "nothing")


@pytest.mark.parametrize(
    "statements",
    [
        "import emoreg; dir(emoreg)",
        "import emoreg; emoreg.UserError; emoreg.read_recipe(emoreg.TrainRecipe)",
        "import emoreg.cli.main",
        *(
            f"from emoreg.cli.main import main\ntry: main({arguments})\nexcept SystemExit: pass"
            for arguments in (["--help"], ["--version"], ["quickstart", "--help"], ["train", "--help"], ["trian"])
        ),
    ],
)
def test_heavy_libraries_are_not_imported_before_they_are_needed(statements: str) -> None:
    assert not imported_by(statements) & set(HEAVY)
