"""The numbers in docs/findings.md and of the README's findings agree with the tables in results/."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import emoreg
from emoreg.report.analyse_table import analyse
from emoreg.report.contrast_kinds import KINDS
from emoreg.report.findings import findings
from emoreg.study.results_table import read_results

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "results").glob("*.parquet"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
FINDINGS = " ".join((ROOT / "docs" / "findings.md").read_text(encoding="utf-8").split())
CONTROLS = {"random_encoder": "fresh", "shuffled_affect": "shuffled", "neutral_pretext": "rotation"}
SECOND_EDITION = [path for path in RESULTS if path.stem.startswith("second-")]
VERDICTS = {"above": "above", "not_above": "not above", "below": "below", "missing_twin": "(a twin is missing)"}
FIRST_EDITION = [path for path in RESULTS if path.stem.startswith("cifar10-")]


def points(share: float) -> str:
    """A difference of shares in percentage points, with a sign: "+1.25", "−0.50"."""
    return f"{100 * share:+.2f}".replace("-", "−")


@pytest.mark.parametrize("path", FIRST_EDITION, ids=lambda path: path.stem)
def test_differences_to_twins_of_the_first_edition_agree_with_its_tables(path: Path) -> None:
    """Translates the arms of the first edition here, independently of emoreg's own translation."""
    table = pd.read_parquet(path)
    twins = table[(table.stage == 2) & table.arm.isin(["learned", *CONTROLS])]
    assert set(twins["recipe.regulation.mode"]) == {"learned"}
    experiences = [CONTROLS.get(arm, "affect") for arm in twins.arm]
    frame = pd.DataFrame({"mode": "learned", "experience": experiences, "seed": twins.seed})
    contrasts = emoreg.analyse(frame.assign(accuracy=twins.test_accuracy))
    limits = contrasts[contrasts.contrast == "twin"].set_index("against")[["point", "low", "high"]]
    cells = [
        f"{points(point)} [{points(low)}, {points(high)}]"
        for point, low, high in limits.loc[list(CONTROLS.values())].itertuples(index=False)
    ]
    assert f"| `{path.stem}` | {' | '.join(cells)} |" in FINDINGS
    effects = contrasts[contrasts.contrast.isin(["label", "emotion"])]
    assert set(effects.verdict) == {"missing_twin"}  # `moments`, which the first edition did not have


@pytest.mark.parametrize("path", SECOND_EDITION, ids=lambda path: path.stem)
def test_contrasts_of_the_second_edition_agree_with_its_tables(path: Path) -> None:
    contrasts = emoreg.analyse(read_results(path))
    tested = contrasts[contrasts.verdict.notna()]
    factor = "stimuli" if tested.stimuli.nunique() > 1 else "variant"
    for variant, arm in tested.groupby(factor, dropna=False):
        rows = {str(row["contrast"]): row for row in arm.to_dict("records")}
        cells = [
            f"{points(row['point'])} [{points(row['low'])}, {points(row['high'])}] {VERDICTS[row['verdict']]}"
            for row in (rows["gain"], rows["over_ensemble"], rows["label"])
        ]
        name = f"`results/{path.name}`" + (f", {variant}" if isinstance(variant, str) else "")
        label = rows["label"]
        assert f"| {name} | {label['n']} | {' | '.join(cells)}, {label['against']} |" in FINDINGS


def test_the_contrasts_in_the_readme_agree_with_the_tables() -> None:
    rows = README.partition("| Learn-E-Reg minus |")[2].split("\n\n")[0].splitlines()[2:]
    studies = []
    for name in ("second-cifar100-replication", "second-cifar100-tenth"):
        contrasts = emoreg.analyse(read_results(ROOT / "results" / f"{name}.parquet"))
        tested = contrasts[contrasts["verdict"].notna()].to_dict("records")
        studies.append({str(row["contrast"]): row for row in tested})
    for line, kind in zip(rows, ("label", "emotion", "gain", "over_ensemble", "regulation"), strict=True):
        words, *cells = line.strip("| ").split(" | ")
        for cell, study in zip(cells, studies, strict=True):
            if kind not in study:
                assert cell == "not run"
                continue
            effect = study[kind]
            limits = f"{points(effect['point'])} [{points(effect['low'])}, {points(effect['high'])}]"
            verdict = {"above": "above", "not_above": "not shown above"}[effect["verdict"]]
            assert cell.replace("only just ", "") == f"{limits}, {verdict}"
            assert not KINDS[kind].twins or f"the hardest is `{effect['against']}`" in words


def test_the_finding_that_other_pretexts_do_better_agrees_with_the_report() -> None:
    verdict = findings(analyse("a study", read_results(ROOT / "results" / "second-cifar100-tenth.parquet")))[0]
    assert verdict == (
        "No label effect is shown with 7 seeds. Another pretext on the same images did better than emotion, "
        "judged by intervals, not tested: Learn-E-Reg is below rotation, −1.33 points (95 % interval −2.78 to −0.86); "
        "Learn-E-Reg is below neutral, −1.22 points (95 % interval −1.90 to −0.66)."
    )
    assert "1.22 points below `neutral` [−1.90, −0.66] and 1.33 below `rotation` [−2.78, −0.86]" in FINDINGS


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_table_is_listed_under_its_edition(path: Path) -> None:
    first, second = FINDINGS.split("## What was wrong with the first edition")
    table = pd.read_parquet(path)
    is_first = "edition" not in table or (table.edition == 1).all()
    assert f"results/{path.name}" in (second if is_first else first)


def test_withdrawn_gains_of_the_first_edition_are_not_stated_as_results() -> None:
    results = FINDINGS.partition("## What was wrong with the first edition")[0]
    assert "Second edition" in results
    for withdrawn in ("+1.99", "+2.21", "−3.34", "−1.56"):
        assert withdrawn not in results and withdrawn not in README
