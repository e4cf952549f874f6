"""The study file and the code of docs/study.md work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from emoreg.report.looks import possible_looks
from emoreg.study.arms import REGULATED
from emoreg.study.read_study import read_study
from emoreg.study.study_file import StudyFile

PAGE = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
FILES, CODE = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("yaml", "python"))


def test_the_study_file_is_read_as_the_page_describes_it(tmp_path: Path) -> None:
    whole, pinned = FILES
    (tmp_path / "all.yaml").write_text(whole + pinned, encoding="utf-8")
    study = read_study(tmp_path / "all.yaml")
    assert [f"{point.target}, {point.backbone}" for point in study.grid] == [
        f"{target}, {backbone}"
        for target in ("cifar10", "cifar100")
        for backbone in ("resnet20", "vit_tiny_patch16_224")
    ]
    for point in study.grid:
        assert [variant.label for variant in point.variants] == ["own losses", "mixture", "shrunk"]
        assert [stimuli.label for stimuli in point.stimuli] == ["oasis", "emoset"]
        assert point.recipe.target.validation == 0 and point.recipe.target.test  # as in a confirmation
    assert (study.seeds, study.looks, study.machine is None) == (8, (6, 8), False)


def test_some_data_could_pass_at_each_look_of_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(FILES[0], encoding="utf-8")
    study = read_study(tmp_path / "study.yaml")
    modes = {arm.mode for arm in study.arms if arm.mode in REGULATED}
    (arms,) = {len(modes) * len(point.variants) * len(point.stimuli) for point in study.grid}
    assert (arms, study.looks) == (6, possible_looks((6, 8), arms))
    assert possible_looks((4, 8), 1) == possible_looks((5, 8), 6) == (8,)  # as the page says
    assert possible_looks((5, 8), 5) == (5, 8)


def test_every_key_of_a_study_file_is_on_the_page() -> None:
    keys = re.findall(r"^(\w+):", "".join(FILES), re.MULTILINE)
    internal = {"run_seeds", "data", "stem", "smoke"}  # stored by emoreg itself, some from --seeds and --smoke
    assert set(keys) == set(StudyFile.__dataclass_fields__) - internal


def test_the_example_of_a_small_frame_is_analysed() -> None:
    (example,) = (code for code in CODE if "DataFrame" in code)
    space: dict[str, Any] = {}
    exec(compile(example, "docs/study.md", "exec"), space)
    (gain,) = space["contrasts"].query("contrast == 'gain'").itertuples()
    assert gain.verdict == "above" and abs(gain.point - (0.02 - 0.0005 * 3.5)) < 1e-9
    assert isinstance(space["frame"], pd.DataFrame)
