from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import (
    SetQuota,
    epoch_quotas,
    evaluation_batch_size,
    evaluation_batches,
    mixed_order,
    steps_per_epoch,
    training_batches,
    view_batches,
)
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from narrow import present
from refusing import refusal

EVERYTHING = AugmentSettings(
    crop_padding=1, alternate_flip=True, policy="trivial", jitter=0.3, erase=0.3, cutout=0.2, mixup=0.8, cutmix=1.0
)


@pytest.fixture
def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    return load_images(Table("noise", pixels, np.arange(50, dtype=np.int64)), 8, False, 1.0, Progress(quiet=True))


def pixels_of(images: ImageSet) -> Tensor:
    assert images.pixels is not None
    return images.pixels


def test_disabled_changes_are_not_applied(images: ImageSet) -> None:
    """Without a crop each image is itself or its mirror image; without a flip none is mirrored."""
    plain = normalise(pixels_of(images))
    for batch, _, rows, *_ in training_batches(images, 10, AugmentSettings(crop_padding=0, flip=True), 0, 0):
        flipped = [torch.equal(got, plain[row].flip(2)) for got, row in zip(batch, rows.tolist(), strict=True)]
        same = [torch.equal(got, plain[row]) for got, row in zip(batch, rows.tolist(), strict=True)]
        assert all(one != other for one, other in zip(flipped, same, strict=True))
    for batch, _, rows, *_ in training_batches(images, 10, AugmentSettings(crop_padding=1, flip=False), 0, 0):
        for got, row in zip(batch, rows.tolist(), strict=True):
            bordered = F.pad(pixels_of(images)[row], (1, 1, 1, 1))
            windows = [normalise(bordered[None, :, y : y + 8, x : x + 8])[0] for y in range(3) for x in range(3)]
            assert any(torch.equal(got, window) for window in windows)


def test_views_are_fixed_and_differ(images: ImageSet) -> None:
    def view(number: int, seed: int = 0) -> Tensor:
        batches = list(view_batches(images, AugmentSettings(), seed, number, batch_size=16))
        assert torch.cat([rows for _, _, rows, *_ in batches]).tolist() == list(range(50))
        return torch.cat([pixels for pixels, *_ in batches])

    assert torch.equal(view(0), view(0))
    assert not torch.equal(view(0), view(1)) and not torch.equal(view(0), view(0, seed=1))


def test_each_epoch_has_every_image_once_in_a_new_order(images: ImageSet) -> None:
    orders = [
        torch.cat([y for _, y, *_ in training_batches(images, 10, AugmentSettings(), 0, epoch)]) for epoch in (0, 1)
    ]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert not torch.equal(*orders)


def test_an_epoch_depends_only_on_seed_and_epoch(images: ImageSet) -> None:
    def epoch(seed: int, number: int) -> Tensor:
        torch.rand(number + seed + 3)  # other draws must not matter
        return torch.cat([x for x, *_ in training_batches(images, 16, AugmentSettings(), seed, number)])

    assert torch.equal(epoch(0, 1), epoch(0, 1))
    assert not torch.equal(epoch(0, 1), epoch(0, 2)) and not torch.equal(epoch(0, 1), epoch(1, 1))


def test_each_image_gets_its_own_draw(images: ImageSet) -> None:
    """Copies of one image differ within a batch."""
    pixels = pixels_of(images)[:1].expand(40, -1, -1, -1).contiguous()
    same = ImageSet(images.table.take(np.zeros(40, np.int64)), 8, pixels, torch.zeros(40, dtype=torch.long))
    ((batch, *_),) = training_batches(same, 40, AugmentSettings(crop_padding=2, flip=True), 0, 0)
    assert len(batch.flatten(1).unique(dim=0)) > 15


def test_without_augmentation_images_are_unchanged(images: ImageSet) -> None:
    none = AugmentSettings(crop_padding=0, flip=False)
    for batch, labels, rows, *_ in training_batches(images, 10, none, 0, 0):
        assert torch.equal(rows, labels)  # labels of this set are row numbers
        assert_close(batch, normalise(pixels_of(images)[labels]))


def test_incomplete_batches_are_dropped_except_for_a_set_smaller_than_one(images: ImageSet) -> None:
    sizes = [len(y) for _, y, *_ in training_batches(images, 16, AugmentSettings(), 0, 0)]
    assert sizes == [16, 16, 16] and steps_per_epoch(50, 16) == 3
    assert [len(y) for _, y, *_ in training_batches(images, 64, AugmentSettings(), 0, 0)] == [50]
    assert steps_per_epoch(50, 64) == 1


@pytest.mark.parametrize("augment", [AugmentSettings(crop_padding=2), EVERYTHING])
@pytest.mark.parametrize(("parts", "batch_size"), [(2, 16), (3, 12), (4, 16), (3, 16), (4, 64)])
def test_the_parts_of_a_batch_together_are_the_batch(
    images: ImageSet, parts: int, batch_size: int, augment: AugmentSettings
) -> None:
    arguments = (images, batch_size, augment, 3, 1)
    if augment.mixing and min(batch_size, 50) % (2 * parts):  # a pair would have its images in two processes
        refused = refusal(lambda: next(training_batches(*arguments, part=(0, parts))))
        assert f"{parts} processes cannot share" in refused and f"multiple of {2 * parts}" in refused
        return
    whole = list(training_batches(*arguments, done=steps_per_epoch(50, batch_size) - 1))
    shared = [
        list(training_batches(*arguments, done=steps_per_epoch(50, batch_size) - 1, part=(which, parts)))
        for which in range(parts)
    ]
    for number, batch in enumerate(whole):
        for name, expected in batch._asdict().items():
            if expected is not None:
                assert torch.equal(torch.cat([getattr(part[number], name) for part in shared]), expected)
        sizes = [len(part[number].rows) for part in shared]
        assert max(sizes) - min(sizes) <= 1


def test_an_epoch_resumes_at_any_batch_with_the_same_images_and_labels(images: ImageSet) -> None:
    whole = list(training_batches(images, 8, EVERYTHING, 3, 1))
    for done in (1, 4, 5):
        rest = list(training_batches(images, 8, EVERYTHING, 3, 1, done=done))
        assert len(rest) == 6 - done
        for batch, expected in zip(rest, whole[done:], strict=True):
            assert all(torch.equal(present(got), present(there)) for got, there in zip(batch, expected, strict=True))


def test_other_changes_affect_neither_order_nor_crop_nor_flip(images: ImageSet) -> None:
    plain = list(training_batches(images, 10, AugmentSettings(), 0, 0))
    more = AugmentSettings(mixup=1.0, cutmix=1.0, erase=1.0, mix_share=0.2)
    seen = 0
    for batch, expected in zip(training_batches(images, 10, more, 0, 0), plain, strict=True):
        assert torch.equal(batch.rows, expected.rows) and torch.equal(batch.labels, expected.labels)
        whole = (present(batch.share) == 1)[:, None, None, None]
        kept = whole & (batch.images != 0)  # neither mixed nor erased
        assert torch.equal(batch.images[kept.expand_as(batch.images)], expected.images[kept.expand_as(batch.images)])
        seen += int(whole.sum())
    assert seen > 20


def test_alternating_flips_show_every_image_both_ways_in_any_two_epochs(images: ImageSet) -> None:
    augment, plain = AugmentSettings(crop_padding=0, alternate_flip=True), normalise(pixels_of(images))

    def mirrored(seed: int, epoch: int) -> list[bool]:
        by_row = {}
        for batch, _, rows, *_ in training_batches(images, 10, augment, seed, epoch):
            for got, row in zip(batch, rows.tolist(), strict=True):
                by_row[row] = torch.equal(got, plain[row].flip(2))
                assert by_row[row] or torch.equal(got, plain[row])
        return [by_row[row] for row in range(50)]

    first = mirrored(0, 0)
    assert 15 <= sum(first) <= 35 and first != mirrored(1, 0)
    for epoch in range(1, 4):
        assert mirrored(0, epoch) == [flip != (epoch % 2 == 1) for flip in first]


def test_targets_of_mixed_images_are_the_shares_of_both_classes(images: ImageSet) -> None:
    settings = AugmentSettings(mixup=1.0, cutmix=1.0, mix_share=0.7)
    for batch in training_batches(images, 9, settings, 0, 0):
        targets, partners = batch.targets(50), [1, 0, 3, 2, 5, 4, 7, 6, 8]
        assert torch.equal(present(batch.partner_labels), batch.labels[partners])
        assert_close(targets.sum(dim=1), torch.ones(9))
        for row, share in enumerate(present(batch.share).tolist()):
            expected = torch.zeros(50)
            expected[batch.labels[row]] += share
            expected[batch.labels[partners[row]]] += 1 - share
            assert_close(targets[row], expected)
    (plain, *_) = training_batches(images, 9, AugmentSettings(), 0, 0)
    assert plain.targets(50) is plain.labels


def test_mixed_images_are_both_images_in_their_shares(images: ImageSet) -> None:
    """Mixing normalised images equals mixing pixels, because normalisation is linear."""
    settings = AugmentSettings(crop_padding=0, flip=False, mixup=1.0)
    plain = normalise(pixels_of(images))
    for batch in training_batches(images, 10, settings, 0, 0):
        share = present(batch.share)[:, None, None, None]
        expected = share * plain[batch.labels] + (1 - share) * plain[present(batch.partner_labels)]
        assert_close(batch.images, expected)


def test_views_are_augmented_but_not_mixed(images: ImageSet) -> None:
    batches = list(view_batches(images, EVERYTHING, 0, 1, batch_size=16))
    assert all(batch.share is None for batch in batches)
    plain = torch.cat([batch.images for batch in view_batches(images, AugmentSettings(), 0, 1)])
    assert not torch.equal(torch.cat([batch.images for batch in batches]), plain)


def test_more_parts_than_a_batch_has_images_are_refused(images: ImageSet) -> None:
    batches = training_batches(images, 2, AugmentSettings(), 0, 0, part=(0, 3))
    assert "3 processes cannot share batches of 2 images" in refusal(lambda: next(batches))


def order_of(quotas: tuple[SetQuota, ...], seed: int, epoch: int) -> list[int]:
    return mixed_order(quotas, seed, epoch, generator(seed, "epoch", epoch)).tolist()


def test_quotas_are_proportional_to_the_weights_and_add_up_to_an_epoch() -> None:
    assert epoch_quotas([30, 20], None) == (SetQuota(30, 30), SetQuota(20, 20))
    assert epoch_quotas([30, 20], [1, 4]) == (SetQuota(30, 10), SetQuota(20, 40))
    assert epoch_quotas([30, 20], [0.5, 2]) == epoch_quotas([30, 20], [1, 4])
    assert [quota.per_epoch for quota in epoch_quotas([3, 3, 4], [1, 1, 1])] == [4, 3, 3]
    assert [quota.per_epoch for quota in epoch_quotas([90, 10], [0.1, 0.2])] == [33, 67]
    draw = np.random.default_rng(0)
    for _ in range(200):
        counts, weights = draw.integers(1, 500, 4).tolist(), draw.uniform(0.01, 9, 4).tolist()
        quotas = np.array([quota.per_epoch for quota in epoch_quotas(counts, weights)])
        assert quotas.sum() == sum(counts)
        assert np.abs(quotas - sum(counts) * np.array(weights) / sum(weights)).max() < 1


def test_an_epoch_shuffles_the_quotas_of_all_sets_together() -> None:
    order = np.array(order_of((SetQuota(30, 10), SetQuota(20, 40)), 0, 0))
    first = order < 30
    assert first.sum() == 10 and (~first).sum() == 40 and order.max() < 50
    assert len(set(order[first])) == 10  # none is repeated before all were drawn
    assert np.bincount(order[~first] - 30, minlength=20).tolist() == [2] * 20
    assert 0 < first[:25].sum() < 10


def test_every_image_of_a_set_is_drawn_before_any_is_repeated() -> None:
    quotas = (SetQuota(7, 3), SetQuota(5, 9))
    seen = np.concatenate([order_of(quotas, 0, epoch) for epoch in range(7)])
    assert np.bincount(seen[seen < 7], minlength=7).tolist() == [3] * 7
    small = np.bincount(seen[seen >= 7] - 7, minlength=5)
    assert small.sum() == 63 and small.max() - small.min() == 1


def test_an_epoch_of_several_sets_depends_only_on_seed_and_epoch() -> None:
    quotas = (SetQuota(30, 25), SetQuota(20, 25))
    assert order_of(quotas, 0, 3) == order_of(quotas, 0, 3)
    assert order_of(quotas, 0, 3) != order_of(quotas, 0, 4) and order_of(quotas, 0, 3) != order_of(quotas, 1, 3)


def test_batches_follow_the_order_of_several_sets_or_of_one(images: ImageSet) -> None:
    quotas, none = (SetQuota(30, 10), SetQuota(20, 40)), AugmentSettings(crop_padding=0, flip=False)
    mixed = [y for _, y, *_ in training_batches(images, 16, none, 0, 1, quotas)]
    assert torch.cat(mixed).tolist() == order_of(quotas, 0, 1)[:48] and len(mixed) == steps_per_epoch(50, 16)
    plain = torch.cat([y for _, y, *_ in training_batches(images, 50, none, 0, 1)])
    assert torch.equal(plain, torch.randperm(50, generator=generator(0, "epoch", 1)))


def test_evaluation_sees_all_images_in_order(images: ImageSet) -> None:
    batches = list(evaluation_batches(images, 16))
    assert torch.cat([y for _, y in batches]).tolist() == list(range(50))
    assert_close(torch.cat([x for x, _ in batches]), normalise(pixels_of(images)))


def test_batches_without_gradients_have_at_most_the_pixels_of_512_small_images() -> None:
    sizes = {8: 512, 32: 512, 64: 512, 96: 227, 128: 128, 224: 41, 512: 8, 1024: 8, 4096: 8}
    assert {size: evaluation_batch_size(size) for size in sizes} == sizes
