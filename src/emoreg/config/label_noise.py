"""Kinds of label noise in a target's training images: drawn at random, or real errors of human annotators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from emoreg.errors import SettingError

LabelNoise = Literal["none", "symmetric", "asymmetric", "aggre", "random1", "random2", "random3", "worse", "noisy"]
DRAWN_NOISE = ("symmetric", "asymmetric")
HUMAN_LABELS: Mapping[LabelNoise, str] = {  # the published label sets (Wei et al. 2022) and their image set
    **dict.fromkeys(("aggre", "random1", "random2", "random3", "worse"), "cifar10"),
    "noisy": "cifar100",
}


def check_label_noise(noise: LabelNoise, share: float | None, name: str, classes: tuple[str, ...] | None) -> None:
    """Raise SettingError for contradictory settings of a target: its label_noise, noise_share, name and classes."""
    if share is not None and not 0 < share < 1:
        raise SettingError("noise_share", f"must lie between 0 and 1, or be null, not {share}")
    image_set = HUMAN_LABELS.get(noise)
    if image_set is not None:
        if name.lower() != image_set:
            raise SettingError("label_noise", f"{noise} has people's labels of {image_set}, and none of {name}")
        if classes is not None:
            reason = f"{noise} needs all classes of {image_set}: annotators chose among all of them"
            raise SettingError("label_noise", reason)
    if share is None and noise in DRAWN_NOISE:
        raise SettingError("noise_share", f"must be given with label_noise {noise}, such as 0.2")
    if share is not None and noise not in DRAWN_NOISE:
        raise SettingError("noise_share", f"must be null with label_noise {noise}: nothing is drawn")
