from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from emoreg.report.method_notes import MethodNotes, method_notes
from result_rows import results, stage_2

DEFAULT: Mapping[str, Any] = {
    "loss.regulated": 0.5,
    "loss.non_emotional": 0.75,
    "loss.emotional": 0.75,
    "loss.budget": "matched",
    "regulation.lam": 0.5,
    "regulation.mix": "probabilities",
    "optimizer.name": "sgd",
}
MIXTURE: Mapping[str, Any] = {
    "loss.regulated": 1.0,
    "loss.non_emotional": 0.0,
    "loss.emotional": 0.0,
    "loss.budget": "as_given",
}


def run(
    settings: Mapping[str, Any] = DEFAULT, mode: str = "learned", variant: str | None = None, edition: int = 2
) -> list[dict[str, Any]]:
    more = {f"recipe.{name}": value for name, value in {**DEFAULT, **settings}.items()}
    rows = stage_2({mode: (0.9,)}, variant=variant, edition=edition)
    return [row | more for row in rows]


def notes(*runs: list[dict[str, Any]]) -> MethodNotes:
    return method_notes(results(*runs))


def test_a_matched_budget_is_a_line_and_needs_no_remark() -> None:
    found = notes(run())
    assert dict(found.facts) == {
        "Edition of the method": "2",
        "Loss": "0.5 · CE(z, y) + 0.75 · CE(z_n, y) + 0.75 · CE(z_e, y), probabilities mixed",
        "Gradient budget": "matched: both branches start with Backbone's gradient (the loss alone would give 1.00 and "
        "1.00 of it)",
        "Takeover of the encoder": "as it is",
    }
    assert (found.remarks, found.editions) == ((), (2,))


def test_the_plan_has_its_purpose_its_seeds_and_its_looks() -> None:
    rows = [row | {"purpose": "confirmation", "planned_seeds": 8, "looks": [4, 8]} for row in run()]
    assert dict(notes(rows).facts)["Plan"] == "confirmation, 8 seeds, looks at 4 and 8"
    once = [row | {"purpose": "confirmation", "planned_seeds": 8, "looks": [8]} for row in run()]
    assert dict(notes(once).facts)["Plan"] == "confirmation, 8 seeds"


def test_variants_with_other_budgets_and_takeovers_have_their_own_lines() -> None:
    shrunk = {"encoder.takeover": "shrunk", "encoder.shrink": 0.4}
    facts = dict(notes(run(), run(mode="fixed"), run({**MIXTURE, **shrunk}, variant="mixture")).facts)
    assert facts["Gradient budget"].startswith("Learn-E-Reg and E-Reg: matched: ")
    assert facts["Gradient budget"].endswith(
        "Learn-E-Reg, mixture: as given: the backbone branch starts with 0.50 of Backbone's gradient, the encoder with "
        "0.50"
    )
    assert facts["Takeover of the encoder"] == (
        "Learn-E-Reg and E-Reg: as it is; Learn-E-Reg, mixture: shrunk and perturbed (s = 0.4)"
    )


def test_a_fresh_encoder_is_taken_over_from_nothing() -> None:
    matched = run({"encoder.takeover": "norm_matched"})
    assert dict(notes(matched, run(mode="learned fresh")).facts)["Takeover of the encoder"] == "norm-matched"


def test_a_budget_as_given_that_is_not_backbones_is_remarked() -> None:
    (remark,) = notes(run(MIXTURE)).remarks
    assert remark == (
        "The gradient budget of Learn-E-Reg is as given (the backbone branch starts with 0.50 of Backbone's gradient, "
        "the encoder with 0.50): differences from Backbone, the ensemble, transfer and "
        "unregulated also reflect step size."
    )
    assert notes(run({"loss.budget": "as_given"})).remarks == ()  # both are 1.00 without a budget


@pytest.mark.parametrize(("mode", "n", "e"), [("learned", "0.90", "0.10"), ("random", "0.50", "0.50")])
def test_the_start_of_a_drawn_lambda_is_its_mean(mode: str, n: str, e: str) -> None:
    facts = dict(notes(run({**MIXTURE, "regulation.lam": 0.1}, mode)).facts)
    assert f"starts with {n} of Backbone's gradient, the encoder with {e}" in facts["Gradient budget"]


def test_rehearsal_is_reported_with_its_effect_on_differences() -> None:
    variant = run({"encoder.rehearsal": 0.5}, variant="kept alive")
    (rehearsed,) = notes(run({"encoder.rehearsal": 0.0}), variant).remarks
    assert rehearsed.startswith("In stage 2 the encoder of Learn-E-Reg, kept alive keeps learning from the stimuli of")
    assert "such as Backbone, the ensemble, fresh and moments, also reflect these images and steps" in rehearsed


def test_twins_whose_frozen_batch_norms_saw_no_images_are_remarked() -> None:
    frozen = {"encoder.frozen": True}
    arms = (run(frozen), run(frozen, "learned shuffled"))
    assert notes(*arms).remarks == ()
    assert notes(run(), run({"encoder.frozen": False}, "learned fresh")).remarks == ()
    (remark,) = notes(*arms, run(frozen, "learned fresh"), run(frozen, "learned moments")).remarks
    assert remark.startswith("The encoder of Learn-E-Reg is frozen. Its batch norms, if it has any, keep in fresh and ")
    assert remark.endswith("differences from fresh and moments also reflect these statistics.")
    shrunk = {**frozen, "encoder.takeover": "shrunk", "encoder.shrink": 0.5}
    assert notes(run(shrunk, "learned moments")).remarks == ()  # estimated anew, on images of the target


def test_adamw_and_mixed_features_are_reported() -> None:
    (adamw,) = notes(run({"optimizer.name": "adamw"})).remarks
    assert adamw.startswith("AdamW is insensitive to the scale of the loss")
    assert notes(run({**MIXTURE, "optimizer.name": "adamw"})).remarks == (
        adamw,
    )  # so differences do not reflect step size
    (features,) = notes(run({"regulation.mix": "features"})).remarks
    assert features == (
        "Learn-E-Reg mixes features: the head that both branches share gets 2.00 times the gradient of Backbone's head."
    )


def test_runs_without_an_edition_are_of_the_first_and_get_no_remark_on_its_budget() -> None:
    table = results(run(MIXTURE, edition=1))
    assert method_notes(table).editions == (1,)
    assert method_notes(table.drop(columns="edition")).editions == (1,)
    assert method_notes(table).remarks == ()


def test_a_table_without_settings_has_no_notes() -> None:
    found = method_notes(results(stage_2({"none": (0.9,), "learned": (0.9,)})))
    assert (found.facts, found.remarks) == ((("Edition of the method", "2"),), ())
    assert method_notes(pd.DataFrame({"mode": []})).editions == ()
