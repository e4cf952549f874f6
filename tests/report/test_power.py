"""The power of a study, by simulating its test."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from emoreg.report.contrasts import analyse
from emoreg.report.power import Spread, given_spread, simulate_power, spreads_of, training_hours
from emoreg.report.power_table import power_table
from emoreg.report.verdicts import Verdict
from refusing import refusal
from report.study_rows import SD, arms, study
from report.test_contrasts import with_answers


def test_the_difference_of_independent_arms_has_a_spread_of_root_two() -> None:
    assert given_spread(0.3).sd == pytest.approx(0.3 * math.sqrt(2))
    assert given_spread(0.3, correlation=0.5).sd == pytest.approx(0.3)


def test_the_power_is_the_share_of_studies_whose_contrasts_are_above() -> None:
    effect, count = 0.005, 200
    ((found, _),) = simulate_power(given_spread(100 * SD), 100 * effect, [8])
    above = dict.fromkeys(("gain", "label", "emotion"), 0)
    for rng in range(count):
        table = analyse(study(arms(0.9 + effect, 0.9), rng=rng))
        for name in above:
            verdicts = table[(table["contrast"] == name) & (table["experience"] == "affect")]["verdict"]
            above[name] += int(verdicts.tolist() == [Verdict.ABOVE])
    for name, times in above.items():
        power = getattr(found, name)
        assert times / count == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / count)), name


def test_more_seeds_find_more_and_more_twins_find_less() -> None:
    powers = [found for found, _ in simulate_power(given_spread(0.3), 0.5, [4, 8, 16])]
    for fewer, more in itertools.pairwise(powers):
        assert fewer.gain < more.gain and fewer.label < more.label and fewer.emotion < more.emotion
    for found in powers:
        assert found.gain >= found.label >= found.emotion


def test_without_an_effect_power_is_the_error_rate() -> None:
    ((found, _),) = simulate_power(given_spread(0.3), 1e-9, [8])
    assert found.gain == pytest.approx(0.025, abs=0.012)
    assert found.emotion < 0.025


def test_a_family_and_looks_make_the_test_stricter() -> None:
    spread = given_spread(0.3)
    alone, family, looked = (
        simulate_power(*arguments)[0][0]
        for arguments in (
            (spread, 0.5, [12]),
            (dataclasses.replace(spread, arms=4), 0.5, [12]),
            (spread, 0.5, [12], [6]),
        )
    )
    assert family.gain < alone.gain
    assert looked.looks == (6, 12)
    assert alone.gain - 0.03 < looked.gain < alone.gain + 0.03  # O'Brien-Fleming-type looks cost almost nothing


def test_too_few_seeds_find_nothing_however_large() -> None:
    ((found, _),) = simulate_power(given_spread(0.3), 50.0, [3])
    assert (found.gain, found.label, found.emotion) == (0, 0, 0)


def test_of_the_references_only_backbone_is_part_of_the_spread() -> None:
    pilot = study(arms(0.91, 0.90))
    wild = study({("transfer", "affect"): 0.9, ("unregulated", "affect"): 0.9}, rng=1)
    wild["accuracy"] += 0.05 * (-1.0) ** wild["seed"]
    assert spreads_of(pd.concat([pilot, wild], ignore_index=True)) == spreads_of(pilot)


def test_the_spread_of_a_pilot_is_that_of_its_differences() -> None:
    (spread,) = spreads_of(study(arms(0.92, 0.90), seeds=50, target="digits", backbone="resnet8"))
    assert spread.sd == pytest.approx(100 * SD * math.sqrt(2), rel=0.1)
    assert spread.sd < spread.sd_safe < 1.1 * spread.sd
    assert (spread.label, spread.arms, spread.image_sd) == ("digits, resnet8", 1, 0)
    assert (spread.runs, spread.freedom) == (7 * 50, 6 * 49)


def test_with_the_same_seeds_in_every_arm_it_is_that_of_the_table_without_the_means_of_arms_and_seeds() -> None:
    pilot = study(arms(0.92, 0.90), seeds=5).query("mode == 'learned'")
    (spread,) = spreads_of(pilot)
    table = pilot.pivot(index="experience", columns="seed", values="accuracy").to_numpy()
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    assert spread.freedom == (6 - 1) * (5 - 1)
    assert spread.sd == pytest.approx(100 * math.sqrt(2 * (rest**2).sum() / spread.freedom), rel=1e-9)


def test_arms_with_other_seeds_count_for_what_they_have_in_common() -> None:
    pair = study({("learned", "affect"): 0.92, ("none", None): 0.9}, seeds=9)
    longer = study({("none", None): 0.9}, seeds=range(9, 30), rng=1)
    (spread,) = spreads_of(pd.concat([pair, longer], ignore_index=True))
    accuracy = pair.pivot(index="seed", columns="mode", values="accuracy")
    assert spread.sd == pytest.approx(100 * (accuracy["learned"] - accuracy["none"]).std())
    assert spread.freedom == 8


def test_arms_without_a_common_seed_estimate_one_spread_together() -> None:
    early = study({("learned", "affect"): 0.92, ("none", None): 0.9}, seeds=9)
    late = study({("learned", "fresh"): 0.8, ("learned", "shuffled"): 0.7}, seeds=range(9, 13), rng=1)
    first, second, both = (spreads_of(table)[0] for table in (early, late, pd.concat([early, late], ignore_index=True)))
    assert both.freedom == first.freedom + second.freedom == 8 + 3
    assert both.sd == pytest.approx(math.sqrt((8 * first.sd**2 + 3 * second.sd**2) / 11))


def test_a_young_arm_leaves_the_spread_of_the_others() -> None:
    pilot = study(arms(0.92, 0.90), seeds=12)
    young = study({("fixed", "affect"): 0.91}, seeds=2, rng=1)
    (spread,) = spreads_of(with_answers(pd.concat([pilot, young], ignore_index=True)))
    (before,) = spreads_of(with_answers(pilot))
    assert spread.freedom == before.freedom + 1
    assert spread.sd == pytest.approx(before.sd, rel=0.05)
    assert before.image_sd > 0 and spread.image_sd > 0


def test_a_run_that_variants_share_counts_once() -> None:
    own = [study({("learned", "affect"): 0.92}, rng=rng, variant=name) for rng, name in enumerate("ab")]
    shared = study({("learned", twin): 0.9 for twin in ("fresh", "shuffled", "moments")}, rng=2)
    backbone = study({("none", None): 0.9}, rng=3)
    once = pd.concat([*own, shared.assign(variant="a"), backbone], ignore_index=True)
    once = with_answers(once.assign(id=[f"run-{row}" for row in range(len(once))], status="finished", seconds=9.0))
    again = once[once["experience"].isin(["fresh", "shuffled", "moments"])].assign(variant="b")
    table = pd.concat([once, again], ignore_index=True)
    assert spreads_of(table) == spreads_of(once)
    assert training_hours(table, 8) == training_hours(once, 8)


def test_a_run_that_variants_share_and_that_collapsed_is_counted_once() -> None:
    pilot = study(arms(0.92, 0.90), classes=10)
    pilot = pilot.assign(id=[f"run-{row}" for row in range(len(pilot))], variant="a")
    pilot.loc[pilot["mode"].isin(["none", "ensemble"]), "variant"] = None
    pilot.loc[pilot["id"] == "run-9", "accuracy"] = 0.1
    again = pilot[pilot["experience"] == "fresh"].assign(variant="b")
    (spread,) = spreads_of(pd.concat([pilot, again], ignore_index=True))
    assert spread.collapsed == 1


def test_what_all_arms_share_does_not_count_as_spread() -> None:
    frame = study(arms(0.72, 0.70, 0.70), seeds=50)
    shared = 0.05 * np.random.default_rng(9).normal(size=50)
    (spread,) = spreads_of(frame.assign(accuracy=frame["accuracy"] + shared[frame["seed"]]))
    assert spread.sd == pytest.approx(100 * SD * math.sqrt(2), rel=0.1)


def test_the_upper_limit_of_the_spread_holds_in_four_pilots_of_five() -> None:
    held = 0
    for rng in range(200):
        (spread,) = spreads_of(study({("learned", "affect"): 0.9, ("none", None): 0.9}, seeds=5, rng=rng))
        held += spread.sd_safe >= 100 * SD * math.sqrt(2)
    assert held / 200 == pytest.approx(0.8, abs=0.1)


def test_test_images_lower_the_power() -> None:
    (spread,) = spreads_of(with_answers(study(arms(0.75, 0.72, 0.72))))
    assert spread.image_sd > 0
    ((found, _),) = simulate_power(spread, 3.0, [8])
    ((without, _),) = simulate_power(dataclasses.replace(spread, image_sd=0.0), 3.0, [8])
    assert found.gain < without.gain


def test_arms_without_a_run_yet_count_in_the_family() -> None:
    done = study(arms(0.92, 0.90)).assign(status="finished")
    waiting = study({("fixed", "affect"): math.nan}).assign(status="waiting")
    (spread,) = spreads_of(pd.concat([done, waiting], ignore_index=True))
    assert spread.arms == 2


def test_a_pilot_without_a_pair_is_refused() -> None:
    assert "no two arms" in (message := refusal(lambda: spreads_of(study({("none", None): 0.9}))))
    assert "STUDY" not in message  # a table of an own loop has no study
    assert "no two arms" in refusal(lambda: spreads_of(study(arms(0.9, 0.9), seeds=1)))


def test_a_pilot_whose_seeds_agree_gives_no_power() -> None:
    pilot = study(arms(0.92, 0.90), seeds=2, target="pets")
    pilot["accuracy"] = pilot.groupby(["mode", "experience"], dropna=False)["accuracy"].transform("mean")
    (spread,) = spreads_of(pilot)
    message = refusal(lambda: power_table(spread, 0.5, [8]))
    assert (
        message.startswith("pets")
        and "the arms differ alike in all seeds of the pilot" in message
        and "--sd" in message
    )


@pytest.mark.parametrize("accuracy", [math.nan, 0.1])
def test_runs_that_collapsed_are_left_out_of_the_spread_and_counted(accuracy: float) -> None:
    pilot = study(arms(0.92, 0.90), classes=10)
    is_lost = (pilot["experience"] == "shuffled") & pilot["seed"].isin([2, 3])
    (spread,) = spreads_of(pilot.assign(accuracy=pilot["accuracy"].mask(is_lost, accuracy)))
    (sound,) = spreads_of(pilot[~is_lost])
    assert (spread.collapsed, spread.runs) == (2, 7 * 8 - 2)
    assert dataclasses.replace(spread, collapsed=0) == sound


def test_an_arm_that_always_collapses_does_not_hide_the_spread_of_the_others() -> None:
    pilot = study(arms(0.92, 0.90), classes=10)
    is_lost = pilot["experience"] == "moments"
    (spread,) = spreads_of(pilot.assign(accuracy=pilot["accuracy"].mask(is_lost, 0.1)))
    assert (spread.collapsed, spread.runs) == (8, 6 * 8)


def test_a_spread_that_is_not_finite_has_no_power() -> None:
    assert "the spread is nan points" in refusal(lambda: simulate_power(Spread(math.nan, math.nan), 0.5, [8]))


def test_training_hours_count_both_stages_and_every_arm_once_per_seed() -> None:
    stage_2 = study({("learned", "affect"): 0.9, ("none", None): 0.9}, seeds=5).assign(stage=2, seconds=10.0)
    stage_1 = study({("none", None): 0.9}, seeds=2).assign(stage=1, mode=None, seconds=5.0)
    table = pd.concat([stage_2, stage_1], ignore_index=True).assign(status="finished")
    table.loc[table["seed"] == 4, "status"] = "waiting"  # the mean of the finished runs is used for it
    assert training_hours(table, seeds=36) == pytest.approx(36 * (2 * 10.0 + 5.0) / 3600)


def test_a_pilot_without_times_gets_no_hours() -> None:
    pilot = study({("learned", "affect"): 0.9, ("none", None): 0.9}, seeds=5).assign(
        status="finished", seconds=math.nan
    )
    assert math.isnan(training_hours(pilot, seeds=8))
    assert "hours" not in printed(power_table(given_spread(0.3), 0.5, [8], pilot=pilot))
    assert "hours" in printed(power_table(given_spread(0.3), 0.5, [8], pilot=pilot.assign(seconds=9.0)))


def printed(table: object) -> str:
    screen = Console(file=io.StringIO(), width=200)
    screen.print(table)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_the_table_has_a_row_for_each_number_of_seeds_and_says_what_is_enough() -> None:
    text = printed(power_table(given_spread(0.3), 0.5, [12, 8, 40]))
    rows = [line.split()[0] for line in text.splitlines() if "%" in line][:3]
    assert rows == ["8", "12", "40"]
    assert (
        "Fewest of these numbers of seeds with at least 80%: gain over Backbone 12, label effect 12, emotion 40."
        in text
    )
    assert "(" not in text.splitlines()[3]


def test_with_a_pilot_the_table_plans_with_the_upper_limit_of_the_spread() -> None:
    spread = Spread(sd=0.4, sd_safe=0.7, arms=3, label="digits, resnet8", runs=35, freedom=24)
    text = printed(power_table(spread, 0.5, [8], looks=[4]))
    assert "digits, resnet8" in text
    assert "from 35 runs (24 degrees of freedom); at most 0.70 with 80 % confidence" in text
    assert "none of them" in text
    assert "0.025 / 3" in text and "looks after 4 seeds" in text
    found, safe = simulate_power(spread, 0.5, [8], [4])[0]
    assert f"{found.gain:.0%} ({safe.gain:.0%})" in text


def test_the_table_says_how_many_runs_of_the_pilot_collapsed() -> None:
    text = printed(power_table(Spread(sd=0.4, sd_safe=0.7, runs=35, freedom=24, collapsed=1), 0.5, [8]))
    assert "One run of the pilot collapsed and is not in the spread." in text
    assert "collapsed" not in printed(power_table(Spread(sd=0.4, sd_safe=0.7, runs=35, freedom=24), 0.5, [8]))


def test_the_bootstrap_needs_little_more_than_a_paired_t_test() -> None:
    ((found, _),) = simulate_power(Spread(sd=0.42, sd_safe=0.42), 0.5, [12])
    noncentral = stats.nct(11, 0.5 / 0.42 * math.sqrt(12))
    assert noncentral.sf(stats.t.ppf(0.975, 11)) - 0.05 < found.gain < noncentral.sf(stats.t.ppf(0.975, 11))
