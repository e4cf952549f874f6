from __future__ import annotations

from typing import Any

import pytest

from emoreg.errors import SettingError
from emoreg.suites.options import (
    SUITES,
    AdversarialOptions,
    OtherSet,
    OutOfDistributionOptions,
    Suite,
    TransferOptions,
    parse_suites,
    read_suites,
    shrunk,
)


def test_a_name_alone_stands_for_its_defaults() -> None:
    sets = {"out_of_distribution": {"sets": ["svhn", {"name": "folder", "root": "data/textures"}]}}
    transfer, people = {"transfer": {"sets": ["cifar100"]}}, {"human_uncertainty": {"file": "data/cifar10h-probs.npy"}}
    own = Suite(adversarial=AdversarialOptions(images=3))
    found = read_suites(["corruptions", {"calibration": None}, sets, own, transfer, people])
    assert tuple(suite.name for suite in found) == SUITES
    assert found[0].public_options["seed"] == 0 and found[3].public_options["images"] == 3
    assert found[2].public_options["sets"] == [{"set": "svhn", "classes": None}, {"set": "textures", "classes": None}]
    assert parse_suites(["calibration", "adversarial: {eps: [1, 4]}"])[1].options == AdversarialOptions(eps=(1.0, 4.0))


@pytest.mark.parametrize(
    ("entries", "key", "message"),
    [
        (["calibration", "coruptions"], "suites[1]", "did you mean 'corruptions'?"),
        ([{"coruptions": {}}], "suites[0].coruptions", "did you mean"),
        (["calibration", {"adversarial": {"imags": 3}}], "suites[1].adversarial.imags", "adversarial.images"),
        ([{"adversarial": {"images": 0}}], "suites[0].adversarial.images", "at least 1"),
        ([{"adversarial": {"eps": [8, 8]}}], "suites[0].adversarial.eps", "different numbers"),
        ([{"adversarial": {"eps": [0]}}], "suites[0].adversarial.eps", "above 0"),
        ([{"corruptions": {"seed": -1}}], "suites[0].corruptions.seed", "at least 0"),
        (["out_of_distribution"], "suites[0].out_of_distribution.sets", "at least one other set"),
        (["transfer"], "suites[0].transfer.sets", "at least one other set"),
        (["human_uncertainty"], "suites[0].human_uncertainty.file", "must name cifar10h-probs.npy"),
        ([{"out_of_distribution": {"sets": ["svhn", "svhn"]}}], "suites[0].out_of_distribution.sets[1]", "once"),
        (["calibration", "calibration"], "suites[1]", "appears twice"),
        ([{"calibration": {}, "adversarial": {}}], "suites[0]", "together"),
        ([3], "suites[0]", "a name"),
        ("calibration", "suites", "must be a list"),
    ],
)
def test_an_error_names_the_entry_and_the_closest_match(entries: Any, key: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_suites(entries)
    assert caught.value.key.startswith(key) and message in str(caught.value)


def test_the_id_depends_on_the_options_but_not_on_paths() -> None:
    one, other = parse_suites(["adversarial"])[0], parse_suites(["adversarial: {images: 100}"])[0]
    assert one.id != other.id and len(one.id) == 8
    here, there = (
        read_suites([{"out_of_distribution": {"sets": [{"name": "folder", "root": f"{place}/textures"}]}}])[0]
        for place in ("/data", "elsewhere")
    )
    assert here.id == there.id and here.options != there.options
    assert OtherSet("folder", "a/textures").label == "textures" and OtherSet("svhn", "data").label == "svhn"


def test_a_smoke_run_scores_a_few_images() -> None:
    assert shrunk([{"corruptions": {"seed": 3}}, {"calibration": {}}]) == [
        {"corruptions": {"seed": 3, "images": 8}},
        {"calibration": {}},
    ]


def test_an_unknown_set_is_named_with_its_key() -> None:
    with pytest.raises(SettingError, match=r"sets\[1\].name: .* 'svnh' \(did you mean 'svhn'\?\)"):
        OutOfDistributionOptions((OtherSet("cifar100"), OtherSet("svnh")))
    for name in ("hf:", "hf:somebody/", "hf:a/b/c/d"):
        with pytest.raises(SettingError, match=rf"sets\[0\].name: '{name}' is not of the form hf:OWNER/NAME"):
            OutOfDistributionOptions((OtherSet(name),))
    assert TransferOptions((OtherSet("emotion6"), OtherSet("hf:somebody/something"))).sets
