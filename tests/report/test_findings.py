from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emoreg.report.analyse_table import analyse
from emoreg.report.findings import findings
from result_rows import TWINS, results, stage_1, stage_2

NAN = math.nan
REFERENCES = {"none": 0.0, "ensemble": 0.0}
SEEDS = 10


def arm(gain: float, seeds: int = SEEDS, number: int = 0) -> list[float]:
    """Accuracies around 0.9 + gain that rise with the seed, with noise of a tenth of a point, seeded by `number`."""
    noise = np.random.default_rng(number).uniform(-0.001, 0.001, seeds)
    return [round(value, 4) for value in 0.9 + np.arange(seeds) / 1000 + gain + noise - noise.mean()]


def arms(gains: Mapping[str, float], seeds: int = SEEDS) -> dict[str, list[float]]:
    return {name: arm(gain, seeds, number) for number, (name, gain) in enumerate(gains.items())}


def study(gains: Mapping[str, float], seeds: int = SEEDS, **more: Any) -> pd.DataFrame:
    return results(stage_2(arms(gains, seeds), **more))


def twins(**gains: float) -> dict[str, float]:
    """Gains of all twins of Learn-E-Reg, 0 unless given."""
    return {f"learned {name}": gains.get(name, 0.0) for name in TWINS}


def findings_of(table: pd.DataFrame) -> list[str]:
    return findings(analyse("a study", table))


def test_names_with_commas_are_separated_by_semicolons() -> None:
    gains = {"learned": 0.02, "fixed": 0.02, "learned fresh": 0.0, "fixed fresh": 0.0}
    rows = [stage_2(arms({"none": 0.0}, 4)), *(stage_2(arms(gains, 4), variant=name) for name in ("own losses", "b"))]
    arms_in_words = "E-Reg, own losses; E-Reg, b; Learn-E-Reg, own losses; and Learn-E-Reg, b: the twins moments and"
    assert findings_of(results(*rows))[0].startswith(
        f"No verdict on the label effect or the emotion effect of {arms_in_words} shuffled are missing"
    )


def test_an_effect_above_every_twin_is_specific_to_emotion_and_says_what_that_rules_out() -> None:
    first, second, *others = findings_of(study({**REFERENCES, "learned": 0.02, **twins(shuffled=0.005)}))
    assert first.startswith("An effect specific to emotion is found. Above every twin with 10 seeds: Learn-E-Reg, +1.5")
    assert ", p < 0.001) over the hardest, shuffled." in first
    assert second == (
        "The effect is not explained by capacity, the scale of weights, the images and training on them, this "
        "neutral label or pre-training by quarter turns."
    )
    assert others[0].startswith("Above Backbone with 10 seeds: Learn-E-Reg, +2.00 points (95 % interval ")
    assert not any("positive control" in sentence for sentence in others)


@pytest.mark.parametrize("as_good", ["rotation", "neutral"])
def test_an_effect_that_another_pretext_has_too_is_reported_as_a_label_effect(as_good: str) -> None:
    sentences = findings_of(study({**REFERENCES, "learned": 0.02, **twins(**{as_good: 0.02})}))
    assert sentences[0].startswith(
        "A label effect is found; it is not shown to be specific to emotion. Above fresh, moments and shuffled with "
        "10 seeds: Learn-E-Reg, +2.0"
    )
    explanation = {"rotation": "pre-training by quarter turns", "neutral": "this neutral label"}[as_good]
    assert f" over {as_good}, so {explanation} may do as much." in sentences[1]
    assert not any("not explained by" in sentence for sentence in sentences)


def test_without_neutral_and_rotation_an_effect_of_the_labels_is_never_called_emotion() -> None:
    few = {name: 0.0 for name in twins() if name.split()[1] in ("fresh", "moments", "shuffled")}
    first, second, *_ = findings_of(study({**REFERENCES, "learned": 0.02, **few}))
    assert first.startswith("A label effect is found; it is not shown to be specific to emotion. ")
    assert second == ("No verdict on the emotion effect of Learn-E-Reg: the twins neutral and rotation are missing.")


@pytest.mark.parametrize("missing", ["fresh", "moments", "shuffled"])
def test_without_one_twin_of_the_labels_there_is_no_verdict_however_large_the_difference(missing: str) -> None:
    gains = {**REFERENCES, "learned": 0.05, **twins()}
    del gains[f"learned {missing}"]
    first, *others = findings_of(study(gains))
    assert first == (
        f"No verdict on the label effect or the emotion effect of Learn-E-Reg: the twin {missing} is missing."
    )
    assert others[0].startswith("Above Backbone")
    assert not any("effect is found" in sentence for sentence in [first, *others])


def test_a_null_result_is_reported_as_one_and_asks_for_a_positive_control() -> None:
    sentences = findings_of(study({**REFERENCES, "learned": 0.0, **twins()}))
    assert sentences[0] == "No label effect is shown with 10 seeds."
    assert sentences[1].startswith("Differences from the hardest of fresh, moments and shuffled: Learn-E-Reg, ")
    assert re.fullmatch(r"A label effect of \d\.\d\d points would have been found with probability 0.8.", sentences[2])
    assert sentences[3].startswith("Not shown to be above Backbone with 10 seeds: Learn-E-Reg, ")
    (control,) = [sentence for sentence in sentences if "positive control" in sentence]
    assert "recipes/studies/positive-control-*.yaml" in control


DID_BETTER = "Another pretext on the same images did better than emotion"
LIMITS = r" points \(95 % interval −\d\.\d\d to −\d\.\d\d\)"


@pytest.mark.parametrize("missing", [(), ("neutral",), ("fresh", "moments")])
def test_an_arm_below_another_pretext_is_reported_without_a_label_effect(missing: tuple[str, ...]) -> None:
    gains = {**REFERENCES, "learned": 0.0, **twins(neutral=0.01, rotation=0.02)}
    below = {name: gains[f"learned {name}"] for name in ("rotation", "neutral") if name not in missing}
    first, *others = findings_of(study({name: gain for name, gain in gains.items() if name.split()[-1] not in missing}))
    each = "; ".join(f"Learn-E-Reg is below {name}, −{100 * gain:.2f}{LIMITS}" for name, gain in below.items())
    assert re.search(rf"\. {DID_BETTER}, judged by intervals, not tested: {each}\.$", first)
    assert first.startswith("No verdict on the label effect" if "fresh" in missing else "No label effect is shown with")
    assert not any("did better" in sentence for sentence in others)


@pytest.mark.parametrize("name", ["fresh", "moments", "shuffled"])
def test_an_arm_below_a_twin_without_the_true_labels_is_reported(name: str) -> None:
    first, *_ = findings_of(study({**REFERENCES, "learned": 0.0, **twins(**{name: 0.02})}))
    assert re.fullmatch(
        r"No label effect is shown with 10 seeds\. An encoder without the true labels did better, judged by "
        rf"intervals, not tested: Learn-E-Reg is below {name}, −2\.00{LIMITS}\.",
        first,
    )


def test_a_pretext_above_the_arm_is_not_said_to_do_as_much() -> None:
    sentences = findings_of(study({**REFERENCES, "learned": 0.02, **twins(rotation=0.04)}))
    assert sentences[0].startswith("A label effect is found; it is not shown to be specific to emotion. ")
    assert re.search(rf"\. {DID_BETTER}, .*: Learn-E-Reg is below rotation, −2\.00{LIMITS}\.$", sentences[0])
    assert not any("may do as much" in sentence for sentence in sentences)


def test_with_several_arms_being_below_a_twin_is_said_to_be_uncorrected() -> None:
    gains = {**REFERENCES, "learned": 0.0, **twins(), "fixed": 0.0, "fixed shuffled": 0.0, "fixed rotation": 0.02}
    first, *_ = findings_of(study(gains))
    uncorrected = "judged by intervals, not tested, not corrected for the number of arms: E-Reg is below rotation"
    assert f"For E-Reg a{DID_BETTER[1:]}, {uncorrected}" in first
    first, *_ = findings_of(study(gains | {"learned rotation": 0.02}))
    assert f"{DID_BETTER}, judged by intervals, not tested, not corrected for the number of arms: " in first


def test_an_interval_that_does_not_allow_for_the_choice_of_five_twins_is_not_enough_to_be_below() -> None:
    table = study({**REFERENCES, "learned": 0.0, **twins()})
    of_rotation = (table["mode"] == "learned") & (table["experience"] == "rotation")
    table.loc[of_rotation, "test_accuracy"] += np.linspace(-0.0035, 0.0105, SEEDS)
    (regulated,) = [arm for arm in analyse("a study", table).arms if arm.arm.is_regulated]
    (rotation,) = [twin for twin in regulated.twins if twin.against == "rotation"]
    assert rotation.size.high < 0 < regulated.contrasts["emotion"].size.high
    assert not any("did better" in sentence for sentence in findings_of(table))


RUNNING: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 10, "looks": [10]}


@pytest.mark.parametrize("missing", ["", "learned neutral"])
@pytest.mark.parametrize(
    ("seeds", "more"),
    [(3, {}), (8, RUNNING), (SEEDS, {"purpose": "exploration"})],
    ids=["too few", "between looks", "exploration"],
)
def test_without_a_verdict_no_arm_is_said_to_be_below_a_twin(seeds: int, more: Mapping[str, Any], missing: str) -> None:
    gains = {**REFERENCES, "learned": 0.0, **twins(shuffled=0.05, rotation=0.05)}
    gains.pop(missing, None)
    assert not any("did better" in sentence for sentence in findings_of(study(gains, seeds, **more)))


@pytest.mark.parametrize("missing", ["", "learned neutral"])
def test_a_collapsed_arm_is_not_said_to_be_below_its_twins(missing: str) -> None:
    gains = {**REFERENCES, "learned": -0.8, **twins()}
    gains.pop(missing, None)
    sentences = findings_of(study(gains, classes=[str(k) for k in range(10)]))
    assert not any("did better" in sentence for sentence in sentences)


def test_practical_contrasts_are_never_called_emotion() -> None:
    gains = {**REFERENCES, "learned": 0.05}
    practical = [s for s in findings_of(study(gains)) if "Backbone" in s or "ensemble" in s]
    assert len(practical) == 2
    assert not any("emotion" in sentence or "label" in sentence for sentence in practical)


def test_a_gain_that_the_ensemble_has_too_may_be_ensembling() -> None:
    sentences = findings_of(study({"none": 0.0, "ensemble": 0.02, "learned": 0.02}))
    (gain,) = [s for s in sentences if s.startswith("But not shown")]
    assert gain.startswith("But not shown to be above the ensemble of two plain networks: Learn-E-Reg, ")
    assert gain.endswith("so ensembling may explain as much.")
    alone = findings_of(study({"none": 0.0, "learned": 0.02}))
    assert "The ensemble of two plain networks was not run, so ensembling may explain the gain." in alone


def test_a_gain_that_transfer_has_too_may_be_transfer_learning() -> None:
    sentences = findings_of(study({**REFERENCES, "transfer": 0.02, "learned": 0.02}))
    (gain,) = [s for s in sentences if s.startswith("But not shown")]
    assert gain.startswith("But not shown to be above transfer, the encoder fine-tuned alone: Learn-E-Reg, ")
    assert gain.endswith("so transfer learning may explain as much.")
    better = findings_of(study({**REFERENCES, "transfer": 0.01, "learned": 0.02}))
    assert any(s.startswith("Above transfer, the encoder fine-tuned alone: Learn-E-Reg, +1.00") for s in better)
    worse = findings_of(study({**REFERENCES, "transfer": 0.03, "learned": 0.0}))
    assert any(s.startswith("Below transfer, the encoder fine-tuned alone: Learn-E-Reg, −3.00") for s in worse)


def test_a_gain_that_two_networks_trained_apart_have_too_is_not_credited_to_regulation() -> None:
    sentences = findings_of(study({**REFERENCES, "unregulated": 0.02, "learned": 0.02}))
    (gain,) = [s for s in sentences if s.startswith("But not shown")]
    assert gain.startswith("But not shown to be above the same two networks trained apart: Learn-E-Reg, ")
    assert gain.endswith("so averaging them without regulation may explain as much.")
    better = findings_of(study({"none": 0.0, "unregulated": 0.01, "learned": 0.02}))
    assert any(s.startswith("Above the same two networks trained apart: Learn-E-Reg, +1.00 points") for s in better)
    assert not any("may explain" in sentence for sentence in better)


def test_other_references_are_compared_with_even_without_backbone() -> None:
    sentences = findings_of(study({"ensemble": 0.0, "transfer": 0.03, "learned": 0.02}))
    assert any(s.startswith("Above the ensemble of two plain networks: Learn-E-Reg, +2.00 points") for s in sentences)
    assert any(s.startswith("Below transfer, the encoder fine-tuned alone: Learn-E-Reg, −1.00") for s in sentences)


def test_a_loss_is_reported_as_one_and_is_not_weighed_against_the_ensemble() -> None:
    sentences = findings_of(study({**REFERENCES, "learned": -0.02, "fixed": 0.0}))
    assert any(s.startswith("Below Backbone with 10 seeds: Learn-E-Reg, −2.00 points") for s in sentences)
    assert any(s.startswith("Below the ensemble of two plain networks: Learn-E-Reg, ") for s in sentences)
    assert not any(s.startswith(("Above", "But not")) for s in sentences)


def test_an_effect_of_an_arm_that_is_no_better_than_backbone_does_not_hide_that() -> None:
    gains = {**REFERENCES, "learned": -0.01, **dict.fromkeys(twins(), -0.03)}
    sentences = findings_of(study(gains))
    assert sentences[0].startswith("An effect specific to emotion is found")
    assert sentences[2].startswith("Below Backbone with 10 seeds: Learn-E-Reg, −1.00 points")


@pytest.mark.parametrize("seeds", [1, 3])
def test_too_few_seeds_decide_nothing_and_the_needed_number_is_given(seeds: int) -> None:
    sentences = findings_of(study({**REFERENCES, "learned": 0.05, **twins()}, seeds))
    count = "one seed" if seeds == 1 else "3 seeds"
    assert sentences[0] == (
        "No verdict on the label effect, the emotion effect, the gain over Backbone or the difference from the "
        f"ensemble of Learn-E-Reg: with {count} no test can pass; it takes at least 4."
    )
    assert not any(s.startswith(("Above", "An effect", "A label effect is found")) for s in sentences)


def test_seeds_that_agree_too_much_for_a_test_are_not_called_too_few() -> None:
    table = study({**REFERENCES, "learned": 0.02, **twins()})
    is_affect = (table["mode"] == "learned") & (table["experience"] == "affect")
    sentences = findings_of(table.assign(test_accuracy=np.where(is_affect, 0.92, 0.9)))
    assert sentences[0] == (
        "No verdict on the label effect, the emotion effect, the gain over Backbone or the difference from the "
        "ensemble of Learn-E-Reg: so many seeds agree that no test can pass; more test images or more seeds may "
        "separate them."
    )
    assert not any("not shown" in sentence.lower() or "is shown" in sentence for sentence in sentences)
    assert not any("too few" in sentence or "would have been found" in sentence for sentence in sentences)


def test_an_exploration_of_two_seeds_has_too_few_for_an_interval() -> None:
    sentences = findings_of(study({**REFERENCES, "learned": 0.02}, 2, purpose="exploration"))
    assert any(s.endswith("Learn-E-Reg, +2.00 points (too few seeds for an interval).") for s in sentences)


@pytest.mark.parametrize(
    ("looks", "then"),
    [
        ([4, 16], "the next look at which one can is at 16 seeds"),
        ([4, 5, 40], "the next look at which one can is at 40 seeds"),  # at 5 seeds its level is below 1 / 10,000
    ],
)
def test_after_a_look_too_early_to_decide_the_next_one_that_can_is_given(looks: list[int], then: str) -> None:
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": looks[-1], "looks": looks}
    first, *_ = findings_of(study({**REFERENCES, "learned": 0.02, **twins()}, 4, **plan))
    assert first.endswith(f"with 4 seeds no test can pass; {then}.")


def test_more_arms_need_more_seeds() -> None:
    gains = dict.fromkeys(("fixed", "random", "learned", "random_learned"), 0.0)
    table = results(stage_2(arms({"none": 0.0, **gains}, 4)), stage_2(arms(gains, 4), variant="mixture"))
    (sentence,) = [s for s in findings_of(table) if "no test" in s]
    assert sentence == (
        "No verdict on the gain over Backbone of 8 arms: with 4 seeds no test of 8 arms can pass; it takes at least 5."
    )


def test_no_number_of_seeds_is_asked_for_if_there_are_more_arms_than_any_test_can_allow_for() -> None:
    rows = [stage_2(arms({"learned": 0.0}, 4), variant=f"v{number}") for number in range(251)]
    (sentence,) = [s for s in findings_of(results(stage_2(arms({"none": 0.0}, 4)), *rows)) if "no test" in s]
    assert sentence == (
        "No verdict on the gain over Backbone of 251 arms: with more than 250 arms no test can pass, however many "
        "seeds they have."
    )


def test_a_difference_of_an_early_look_that_has_faded_is_said_first() -> None:
    table = study({**REFERENCES, "learned": 0.02, **twins()}, purpose="confirmation", planned_seeds=10, looks=[7, 10])
    late = (table["mode"] == "learned") & (table["experience"] == "affect") & (table["seed"] >= 7)
    table.loc[late, "test_accuracy"] -= 0.2
    first, *others = findings_of(table)
    assert first.startswith(
        "A difference found at an early look is no longer shown: the label effect of Learn-E-Reg, above with 7 seeds, "
        "is −"
    )
    assert not any(text in sentence for sentence in others for text in ("is found", "Above "))


def looked_at_6_and_9(late: list[float]) -> pd.DataFrame:
    """A study with 9 of 12 planned seeds; `late` are the gains over Backbone at its last three seeds."""
    gains = [0.0073, 0.0042, 0.0036, 0.0037, 0.0033, 0.0029, *late]
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 12, "looks": [6, 9, 12]}
    return results(stage_2({"none": [0.7] * 9, "learned": [0.7 + gain for gain in gains]}, **plan))


def test_a_difference_has_faded_if_its_interval_at_the_level_of_the_look_includes_zero() -> None:
    table = looked_at_6_and_9([-0.0016, 0.0019, -0.001])
    (gain,) = [arm.contrasts["gain"] for arm in analyse("a study", table).arms if arm.arm.is_regulated]
    assert gain.verdict == "above" and gain.size.low < 0 and gain.level < gain.p < 0.025
    first, *others = findings_of(table)
    assert first.startswith(
        "A difference found at an early look is no longer shown: the gain over Backbone of Learn-E-Reg, above with 6 "
        "seeds, is +0.27 points (98.2 % interval −"
    )
    assert not any(sentence.startswith("Above") for sentence in others)


def test_a_difference_that_an_early_look_found_and_later_seeds_still_show_names_this_look() -> None:
    (gain,) = [s for s in findings_of(looked_at_6_and_9([0.0042, 0.0036, 0.0037])) if s.startswith("Above Backbone")]
    assert re.match(r"Above Backbone with 9 seeds: Learn-E-Reg, \+.* points \(98.2 % .*, found at 6 seeds\)\.", gain)


def test_a_faded_label_effect_leaves_no_effect_of_emotion_even_if_a_twin_lacks_the_later_seeds() -> None:
    table = study({**REFERENCES, "learned": 0.02, **twins()}, purpose="confirmation", planned_seeds=10, looks=[7, 10])
    late = (table["mode"] == "learned") & (table["seed"] >= 7)
    table.loc[late & (table["experience"] == "affect"), "test_accuracy"] -= 0.2
    table = table[~(late & (table["experience"] == "rotation"))]
    (regulated,) = [arm for arm in analyse("a study", table).arms if arm.arm.is_regulated]
    emotion = regulated.contrasts["emotion"]
    assert emotion.verdict == "above" and emotion.size.n == 7  # its own last look
    first, *others = findings_of(table)
    assert first.startswith("A difference found at an early look is no longer shown: the label effect of Learn-E-Reg,")
    assert not any("specific to emotion" in sentence for sentence in [first, *others])


def test_a_twin_that_the_labels_beat_is_not_said_to_do_as_much() -> None:
    table = study({**REFERENCES, "learned": 0.02, **twins(shuffled=0.01)})
    neutral = table["experience"] == "neutral"
    table.loc[neutral, "test_accuracy"] += [0.06, -0.06] * (SEEDS // 2)
    first, second, *_ = findings_of(table)
    assert first.startswith("A label effect is found") and "over the hardest, shuffled." in first
    assert second.endswith(" over neutral, so this neutral label may do as much.")


def test_between_looks_the_next_look_is_given() -> None:
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 8, "looks": [4, 8]}
    sentences = findings_of(study({**REFERENCES, "learned": 0.0, **twins()}, 2, **plan))
    assert sentences[0].endswith(
        "of Learn-E-Reg: verdicts are given only at the planned looks, and the next is at 4 seeds."
    )


def test_the_interval_of_a_look_gives_its_coverage() -> None:
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 20, "looks": [10, 20]}
    sentences = findings_of(study({**REFERENCES, "learned": 0.02}, **plan))
    (gain,) = [s for s in sentences if s.startswith("Above Backbone")]
    assert re.search(r"\(99\.\d % interval ", gain)


def test_an_exploration_beside_a_confirmation_comes_after_its_verdicts() -> None:
    confirmed = study({**REFERENCES, "learned": 0.02, **twins()}, purpose="confirmation")
    explored = study({"none": 0.0, "learned": 0.05}, purpose="exploration", first_seed=1000)
    sentences = findings_of(pd.concat([confirmed, explored], ignore_index=True))
    assert sentences[0].startswith("An effect specific to emotion is found.")
    part = next(place for place, sentence in enumerate(sentences) if "is an exploration" in sentence)
    assert sentences[part].startswith("A part of these results is an exploration: its figures are from validation ")
    assert sentences[part + 1].startswith("On validation images, ") and ", exploration, +5.0" in sentences[part + 1]
    assert any(sentence.startswith("Above Backbone") for sentence in sentences[:part])


def test_an_exploration_gives_sizes_and_no_verdict() -> None:
    table = study({**REFERENCES, "learned": 0.05, **twins()}, purpose="exploration")
    sentences = findings_of(table)
    assert sentences[0].startswith("This is an exploration: its figures are from validation images and it gives no ")
    assert sentences[1].startswith("On validation images, the label effect over the hardest twin: Learn-E-Reg, +5.0")
    assert sentences[3].startswith("On validation images, the gain over Backbone: Learn-E-Reg, +5.00 points (95 % ")
    assert not any(s.startswith(("Above", "An effect", "A label effect is found", "No verdict")) for s in sentences)
    assert not any("p = " in s or "p <" in s for s in sentences)


def test_collapsed_runs_are_counted_with_an_exact_interval_and_get_no_verdict() -> None:
    table = study({**REFERENCES, "learned": 0.02, **twins()}, classes=[str(k) for k in range(10)])
    table.loc[
        (table["mode"] == "learned") & (table["experience"] == "shuffled") & (table["seed"] < 2), "test_accuracy"
    ] = 0.1
    sentences = findings_of(table)
    assert sentences[0].startswith("No verdict on the label effect or the emotion effect of Learn-E-Reg")
    assert sentences[0].endswith("runs collapsed, so means over them say nothing.")
    assert (
        "Collapsed (not finite, or hardly above chance): "
        "Learn-E-Reg, shuffled in 2 of 10 runs (exact 95 % interval 3 to 56 %)."
    ) in sentences
    assert any(s.startswith("Above Backbone") for s in sentences)  # Backbone and the arm did not collapse


def test_a_collapse_is_reported_before_a_missing_twin() -> None:
    gains = {**REFERENCES, "learned": 0.0, **twins()}
    del gains["learned shuffled"]
    table = study(gains, classes=[str(k) for k in range(10)])
    table.loc[(table["mode"] == "learned") & (table["experience"] == "affect"), "test_accuracy"] = 0.1
    assert findings_of(table)[0] == (
        "No verdict on the label effect or the emotion effect of Learn-E-Reg: runs collapsed, so means over them "
        "say nothing; the twin shuffled is missing."
    )


def test_a_starved_branch_is_reported_by_training_images() -> None:
    table = study({**REFERENCES, "learned": 0.0})
    of_learned = table["mode"] == "learned"
    table.loc[of_learned, "train_accuracy_non_emotional"] = np.where(table["seed"] < 4, 0.2, 0.6)[of_learned]
    table.loc[of_learned, "train_accuracy_emotional"] = 0.6
    (sentence,) = [s for s in findings_of(table) if s.startswith("One branch starved")]
    assert "Learn-E-Reg in 4 of 10 runs (exact 95 % interval 12 to 74 %)." in sentence
    assert sentence.endswith("λ then says which branch won, not that emotion is useful.")


def test_without_scored_training_images_the_test_split_shows_a_starved_branch() -> None:
    table = study({**REFERENCES, "learned": 0.0, "fixed": 0.0})
    of_learned = table["mode"] == "learned"
    weak = np.where(table["seed"] < 4, 0.2, 0.6)  # the weak branch differs between seeds
    table.loc[of_learned, "test_accuracy_non_emotional"] = weak[of_learned]
    table.loc[of_learned, "test_accuracy_emotional"] = 0.8 - weak[of_learned]
    (sentence,) = [s for s in findings_of(table) if s.startswith("One response")]
    assert sentence.startswith(
        "One response decides almost alone (test result of each without the other): Learn-E-Reg, 60.00 % and 20.00 %."
    )


def test_a_lambda_at_a_limit_is_reported() -> None:
    table = study({"none": 0.0, "learned": 0.0, "fixed": 0.0})
    assert not any(s.startswith("λ") for s in findings_of(table))
    table.loc[(table["mode"] == "learned") & (table["seed"] < 3), "lambda"] = 0.995
    assert "λ ended at a limit, where only one response counts: Learn-E-Reg (near 1 in 3 of 10 seeds)." in findings_of(
        table
    )


def test_several_cells_stimuli_and_variants_are_named() -> None:
    one = {"none": 0.0, "learned": 0.02}
    table = results(
        stage_2(arms(one), stimuli="oasis"),
        stage_2({"learned": arm(0.02, number=3)}, stimuli="emoset", variant="mixture"),
        stage_2(arms(one), target="cifar10", stimuli="oasis"),
    )
    text = " ".join(findings_of(table))
    assert "Learn-E-Reg (oasis) on digits, resnet8, +2.00" in text
    assert "Learn-E-Reg, mixture (emoset) on digits, resnet8" in text
    assert "Learn-E-Reg (oasis) on cifar10, resnet8" in text


def test_the_first_edition_is_named_with_what_was_not_valid() -> None:
    sentences = findings_of(study({**REFERENCES, "learned": 0.02}, edition=1))
    (edition,) = [s for s in sentences if "first edition of the method" in s]
    assert "gradients were not matched" in edition and "controls had one mode" in edition
    assert sentences.index(edition) == 1  # after the verdict, before any number
    assert not any("first edition" in s for s in findings_of(study({**REFERENCES, "learned": 0.02})))


def test_runs_that_differ_in_machine_seeds_beyond_the_plan_and_missing_images_are_flagged() -> None:
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 8, "looks": [8]}
    table = study({"none": 0.0, "learned": 0.02}, **plan)
    table["env.device"] = np.where(table["seed"] < 3, "cpu", "cuda")
    sentences = findings_of(table)
    assert "The runs compared for Learn-E-Reg differ in device." in sentences
    assert "Seeds beyond the plan (up to 2) are in no estimate and no test." in sentences
    assert any(s.startswith("Right or wrong per test image is not known for all runs") for s in sentences)


def test_networks_of_one_arm_with_different_numbers_of_parameters_are_reported() -> None:
    table = study({**REFERENCES, "learned": 0.02, **twins()})
    assert not any("number of parameters" in sentence for sentence in findings_of(table))
    changed = (table["mode"] == "learned") & (table["experience"] == "affect") & (table["seed"] > 3)
    table.loc[changed, "parameters"] = 2000
    (sentence,) = [sentence for sentence in findings_of(table) if "number of parameters" in sentence]
    assert sentence.startswith(
        "Networks of one arm differ in their number of parameters: Learn-E-Reg (1,000 to 2,000). Their"
    )


def test_with_right_or_wrong_of_every_image_nothing_is_flagged() -> None:
    table = study({"none": 0.0, "learned": 0.02}, test_checksum="abc")
    table["test_accuracy"] = table["test_accuracy"].round(2)
    table["test_correct"] = [
        np.packbits(np.arange(100) < round(100 * accuracy)).tobytes() for accuracy in table["test_accuracy"]
    ]
    sentences = findings_of(table)
    assert not any("per test image" in s for s in sentences)


def test_what_stage_1_learned_is_compared_with_shuffled_labels() -> None:
    table = results(stage_1("affect", (0.8, 0.9)), stage_1("shuffled", (0.1, 0.2)), stage_2(arms({"learned": 0.0})))
    (sentence,) = [s for s in findings_of(table) if s.startswith("In stage 1")]
    assert sentence == (
        "In stage 1 the encoder of procedural (resnet8) reached CCC 0.85 (chance 0, 0.15 with shuffled labels) on "
        "validation images."
    )


def test_an_accuracy_of_stage_1_stands_beside_chance_and_the_number_of_images() -> None:
    own = {"validation_ccc": NAN, "validation_images": 120, "validation_chance": 0.25}
    rows = [row | own | {"validation_accuracy": row["validation_ccc"]} for row in stage_1("affect", (0.8, 0.9))]
    (sentence,) = [s for s in findings_of(results(rows, stage_2(arms({"learned": 0.0})))) if s.startswith("In stage 1")]
    assert "reached accuracy 0.85 (chance 0.25; 120 images) on" in sentence


@pytest.mark.parametrize(("affect", "shuffled"), [((0.05, 0.07), ()), ((0.3, 0.4), (0.4, 0.5))])
def test_an_encoder_that_learned_nothing_is_reported_with_the_consequence(
    affect: tuple[float, ...], shuffled: tuple[float, ...]
) -> None:
    table = results(stage_1("affect", affect), stage_1("shuffled", shuffled), stage_2(arms({"learned": 0.0})))
    (sentence,) = [s for s in findings_of(table) if s.startswith("In stage 1")]
    assert sentence.endswith("it hardly learned its labels, so no label effect is to be expected.")


@pytest.mark.parametrize(("accuracy", "is_said"), [(0.26, True), (0.8, False)])
def test_stimuli_without_an_up_make_the_rotation_twin_useless(accuracy: float, is_said: bool) -> None:
    rotation = [row | {"validation_accuracy": accuracy, "validation_ccc": NAN} for row in stage_1("rotation", (0, 0))]
    table = results(stage_1("affect", (0.8, 0.9)), rotation, stage_2(arms({"none": 0.0, "learned": 0.0})))
    assert (
        any(s.startswith("The rotation twin did not learn which way up an image is") for s in findings_of(table))
        == is_said
    )


def test_unfinished_and_failed_runs_are_counted() -> None:
    table = study({"none": 0.0, "learned": 0.0})
    table.loc[[0, 1], "status"] = ["failed", "waiting"]
    assert "2 of 20 runs are not finished (1 failed) and are left out; these findings may change." in findings_of(table)


def test_a_run_that_diverged_is_not_said_to_be_left_out() -> None:
    table = study({"none": 0.0, "learned": 0.0})
    table.loc[0, ["status", "test_accuracy"]] = "diverged", NAN
    sentences = findings_of(table)
    assert any(s.startswith("Collapsed (not finite, or hardly above chance): Backbone in 1 of 10") for s in sentences)
    assert not any("left out" in s for s in sentences)


def test_an_exploration_without_a_common_seed_says_so() -> None:
    rows = stage_2({"none": [0.9, 0.91]}, first_seed=1000) + stage_2({"learned": [0.9, 0.91]}, first_seed=1002)
    first, second, *_ = findings_of(results(rows).assign(purpose="exploration"))
    assert first.startswith("This is an exploration") and second.startswith("No regulated arm has a seed in common")


def test_what_the_plan_leaves_out_is_reported_with_its_reason() -> None:
    analysis = analyse(
        "a study", study({"none": 0.0, "learned": 0.0}), ("digits, vit: wide is left out: no width fits",)
    )
    assert "digits, vit: wide is left out: no width fits." in findings(analysis)


@pytest.mark.parametrize("names", [("none",), ("none", "ensemble"), ("learned fresh",)])
def test_nothing_to_compare_is_reported(names: tuple[str, ...]) -> None:
    assert findings_of(study(dict.fromkeys(names, 0.0))) == [
        "No regulated arm is finished, so there is nothing to compare."
    ]


@pytest.mark.parametrize("seeds", [1, 2, 10])
def test_a_missing_number_is_never_written_as_nan_and_no_sentence_is_repeated(seeds: int) -> None:
    table = study({**REFERENCES, "learned": 0.0, **twins(), "fixed": 0.0, "fixed fresh": 0.0}, seeds)
    table.loc[(table["mode"] == "learned") & (table["seed"] > 0), "status"] = "failed"
    sentences = findings_of(table)
    assert "nan" not in " ".join(sentences).lower().split() and not any("(nan" in s for s in sentences)
    assert len(sentences) == len(set(sentences))
