from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

from emoreg.config.schema import TargetSettings
from emoreg.data.tools.pack import pack
from emoreg.errors import SettingError, UserError
from emoreg.models.regulation import Response
from emoreg.runtime.progress import Progress
from emoreg.suites.options import OtherSet, OutOfDistributionOptions
from emoreg.suites.out_of_distribution import score, separation
from emoreg.suites.subject import Subject, energy_of
from fake_gpu import GPU, AppleGPU


def test_separation_follows_from_the_scores() -> None:
    own, other = torch.arange(100.0) + 100, torch.arange(100.0)
    assert separation(own, other) == (1.0, 0.0)
    assert separation(other, own)[0] == 0.0
    auroc, fpr95 = separation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.5]))
    assert auroc == pytest.approx(4 / 6) and fpr95 == 0.5  # all own scores pass a threshold of 1, and so does 2.5


def test_the_threshold_of_fpr95_is_found_among_tied_scores() -> None:
    """Here the curve is a straight line, of which scikit-learn keeps only the ends unless told otherwise."""
    scores = torch.arange(100.0)
    assert separation(scores, scores) == (0.5, 0.95)


def test_the_energy_of_mixed_probabilities_is_the_weighted_mean_of_both_responses() -> None:
    n, e = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 5.0], [1.0, 0.0]])
    lam = torch.tensor([[0.25]])
    mixed = Response(torch.log(0.75 * n.softmax(1) + 0.25 * e.softmax(1)), n, e, lam)
    assert mixed.logits.logsumexp(dim=1).abs().max() < 1e-6  # the mixture alone has none
    expected = 0.75 * n.logsumexp(1) + 0.25 * e.logsumexp(1)
    assert torch.allclose(energy_of(mixed, "probabilities").float(), expected)
    assert torch.allclose(energy_of(mixed, "logits").float(), mixed.logits.logsumexp(1), atol=1e-6)
    assert torch.allclose(energy_of(Response(n, n, None, None), "probabilities").float(), n.logsumexp(1))


def test_the_energy_is_computed_for_a_device_without_double_precision() -> None:
    z, lam = torch.zeros(4, 3, device=GPU), torch.zeros(1, 1, device=GPU)
    with AppleGPU():
        for response in (Response(z, z, z, lam), Response(z, z, None, None)):
            assert energy_of(response, "probabilities").tolist() == pytest.approx([math.log(3)] * 4)


def test_a_folder_and_a_target_are_other_sets_at_the_size_of_the_run(subject: Subject, image_folder: Path) -> None:
    sets = (OtherSet("folder", str(image_folder)), OtherSet("digits", classes=("3", "4")))
    scored = score(subject, OutOfDistributionOptions(sets=sets, images=8))
    assert set(scored.checksums) == {"test images", "flags", "digits"}
    assert scored.images == "8 test images against 8 of flags and 8 of digits"
    for kind in ("auroc_msp", "auroc_energy", "fpr95_msp", "fpr95_energy"):
        own = [scored.figures[f"{label}_{kind}"] for label in ("flags", "digits")]
        assert scored.figures[kind] == pytest.approx(sum(own) / 2) and 0 <= scored.figures[kind] <= 1


def test_a_pack_of_another_size_is_refused_with_the_key_of_its_root(
    subject: Subject, image_folder: Path, tmp_path: Path, quiet: Progress
) -> None:
    """The size is that of the run's target: other sets have no setting for it."""
    pack("folder", str(image_folder), 16, tmp_path / "small", False, quiet)
    sets = (OtherSet("digits"), OtherSet("folder", str(tmp_path / "small")))
    with pytest.raises(SettingError, match=r"^sets\[1\]\.root: is a pack of another image_size: pack it again for 32"):
        score(subject, OutOfDistributionOptions(sets=sets, images=8))


@pytest.mark.parametrize("classes", [None, ("3", "4")])
def test_the_runs_own_set_is_refused_even_if_only_some_of_its_classes_are_the_runs(
    subject: Subject, classes: tuple[str, ...] | None
) -> None:
    """Its test split may have to stay unseen, and the images of known classes are not images of other things."""
    recipe = dataclasses.replace(subject.recipe, target=TargetSettings("digits", classes=classes))
    own = dataclasses.replace(subject, recipe=recipe)
    with pytest.raises(SettingError, match=r"sets\[0\]: is the run's own target; name other sets, or classes that it"):
        score(own, OutOfDistributionOptions(sets=(OtherSet("digits"),), images=8))


def test_two_sets_of_the_same_images_are_refused_by_name(subject: Subject, image_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(image_folder, tmp_path / "copy")
    sets = (OtherSet("folder", str(image_folder)), OtherSet("folder", str(copy)))
    with pytest.raises(UserError, match="copy has the images of flags; name other sets"):
        score(subject, OutOfDistributionOptions(sets=sets, images=8))


def test_a_missing_set_is_named(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        score(subject, OutOfDistributionOptions(sets=(OtherSet("folder", str(tmp_path / "nowhere")),)))
