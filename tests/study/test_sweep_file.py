from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.errors import SettingError
from emoreg.study.sweep_file import Range, Sweep, read_sweep

RANDOM = """
method: random
trials: {trials}
search:
  optimizer: {{lr: {{low: 0.01, high: 1, log: true}}, name: [sgd, adamw]}}
  training: {{epochs: {{low: 2, high: 4}}}}
"""


def sweep(folder: Path, text: str) -> Sweep:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return read_sweep(path)


def test_a_grid_has_every_combination_over_the_recipe_and_leaves_the_test_split_unseen(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("edition: 2\ntraining: {epochs: 3}\noptimizer: {momentum: 0.5}", "utf-8")
    found = sweep(
        tmp_path,
        "recipe: base.yaml\nseeds: 2\nsearch: {optimizer: {lr: [0.1, 0.2]}, loss: {class_weights: [none, balanced]}}",
    )
    assert found.keys == ("optimizer.lr", "loss.class_weights") and found.name == "mine"
    tried = [tuple(trial.values.values()) for trial in found.trials]
    assert tried == [(0.1, "none"), (0.1, "balanced"), (0.2, "none"), (0.2, "balanced")]
    for trial, (lr, weights) in zip(found.trials, tried, strict=True):
        assert [recipe.seed for recipe in trial.recipes] == [0, 1]
        for recipe in trial.recipes:
            assert isinstance(recipe, TrainRecipe) and not recipe.target.test
            assert (recipe.optimizer.lr, recipe.loss.class_weights) == (lr, weights)
            assert (recipe.training.epochs, recipe.optimizer.momentum) == (3, 0.5)
        assert isinstance(trial.chosen, TrainRecipe) and trial.chosen.target.test


def test_adding_random_trials_does_not_change_earlier_ones(tmp_path: Path) -> None:
    few, many = (sweep(tmp_path, RANDOM.format(trials=trials)) for trials in (5, 30))
    assert many.trials[:5] == few.trials
    rates = [trial.values["optimizer.lr"] for trial in many.trials]
    assert 0.01 <= min(rates) < 0.05 and 0.3 < max(rates) <= 1  # evenly in the logarithm
    assert {trial.values["training.epochs"] for trial in many.trials} == {2, 3, 4}
    assert {trial.values["optimizer.name"] for trial in many.trials} == {"sgd", "adamw"}
    assert sweep(tmp_path, RANDOM.format(trials=5) + "seed: 1").trials != few.trials


def test_trials_that_are_the_same_recipe_are_run_once(tmp_path: Path) -> None:
    found = sweep(tmp_path, "method: random\ntrials: 30\nsearch: {loss: {mutual: [0]}}")
    assert len(found.trials) == 1


def test_stage_1_can_be_swept_too(tmp_path: Path) -> None:
    found = sweep(tmp_path, "stage: pretrain\nsearch: {optimizer: {lr: [0.001, 0.002]}}")
    assert all(isinstance(trial.chosen, PretrainRecipe) for trial in found.trials) and len(found.trials) == 2


def test_a_range_keeps_within_its_limits() -> None:
    assert [Range(1, 3).at(share, whole=True) for share in (0, 0.34, 0.67, 0.9999999)] == [1, 2, 3, 3]
    assert Range(0.1, 0.3).at(0, whole=False) == 0.1 and Range(0.1, 0.3).at(0.9999999, whole=False) == 0.3
    assert Range(1, 100, log=True).at(0.5, whole=False) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {optimizer: {lrr: [1]}}", r"mine.yaml:1: search.optimizer.lrr: unknown setting.*optimizer.lr"),
        ("search: {optimizer: {lr: 0.1}}", r"search.optimizer.lr: must be a list of values, not 0.1"),
        (
            "search: {optimizer: {lr: {low: 1, high: 2}}}",
            r"search.optimizer.lr: must be .*ranges are for method random",
        ),
        ("search: {optimizer: {lr: [-1]}}", r"optimizer.lr: must be positive .*\(trial 1: optimizer.lr -1\)"),
        ("search: {optimizer: {lr: [fast]}}", r"optimizer.lr: must be a number, not 'fast' \(trial 1"),
        ("search: {seed: [1, 2]}", r"search.seed: cannot be tried: set seeds"),
        ("search: {target: {test: [true]}}", r"search.target.test: cannot be tried: the test split stays unseen"),
        ("search: {target: {validation: [0.0]}}", r"target.validation: must be above 0: validation images choose"),
        ("search: {}", r"search: names no setting"),
        ("search: [1]", r"search: must be a mapping of sections and settings"),
        ("trials: 0\nsearch: {seed: [1]}", r"mine.yaml:1: trials: must be 1 to 10,000, not 0"),
        ("methd: grid", r"methd: unknown setting \(did you mean 'method'\?\)"),
        (
            "method: random\nsearch: {optimizer: {lr: {low: 0, high: 1, log: true}}}",
            r"mine.yaml:2: search.optimizer.lr.low: must be above 0 with log: true, not 0",
        ),
        (
            "method: random\nsearch: {optimizer: {lr: {low: 2, high: 1}}}",
            r"search.optimizer.lr.high: must be above low \(2\), not 1",
        ),
        ("recipe: missing.yaml\nsearch: {optimizer: {lr: [1]}}", r"missing.yaml"),
        (
            "stage: pretrain\nsearch: {stimuli: {validation: [0]}}",
            r"stimuli.validation: must be above 0: validation images choose the best trial \(trial 1",
        ),
        (
            "metric: ccc\nsearch: {optimizer: {lr: [1]}}",
            r"metric: must be accuracy or .* or loss with target.labels majority, not ccc",
        ),
        (
            "metric: accuracy\nsearch: {target: {name: [manifest], root: [x], labels: [dimensions]}}",
            r"metric: must be ccc or loss with target.labels dimensions, not accuracy",
        ),
        (
            "stage: pretrain\nrecipe: several.yaml\nsearch: {optimizer: {lr: [1]}}",
            r"metric: must be loss with several stimulus sets, which have no other metric in common, not null",
        ),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "several.yaml").write_text("edition: 2\nalso: [{name: oasis, root: x}]", encoding="utf-8")
    with pytest.raises(Exception, match=message) as caught:
        sweep(tmp_path, text)
    assert caught.type.__name__ in ("SettingError", "UserError") and "\n" not in str(caught.value)


def test_a_grid_that_is_too_large_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    values = list(range(1, 200))
    with pytest.raises(SettingError, match=r"search: has 39,601 combinations; the limit is 10,000"):
        sweep(tmp_path, f"search: {{training: {{epochs: {values}, batch_size: {values}}}}}")
