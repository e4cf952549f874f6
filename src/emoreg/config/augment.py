"""Settings of the random changes of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emoreg.config.rules import check_at_least, check_not_negative, check_rule, check_share
from emoreg.config.setting_types import settle
from emoreg.errors import SettingError


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes of training images, batched; each image gets its own draw. They come in this order: crop, flip,
    policy, jitter, erase, cutout, then mixup or CutMix."""

    crop_padding: int = 4
    """Zero padding in pixels before a random crop back to size; 0 for no crop (He et al. 2016 use 4)."""
    resized_crop: float | None = None
    """Random resized crop (Szegedy et al. 2015): a rectangle of at least this share of the area, in (0, 1], and 3/4 to
    4/3 as wide as high, is scaled to the size of the image; 0.08 is usual for ImageNet. It is cut from the square
    image, so its detail is that of image_size; target.fit pad keeps all of a photograph within its reach. Needs
    crop_padding 0. null for none."""
    flip: bool = True
    """Mirror left to right with probability 1/2. Wrong for digits and text."""
    alternate_flip: bool = False
    """With flip: mirror a random half of the images in the first epoch, the other half in the second, and so on: any
    two epochs in a row show each image both ways (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds")."""
    policy: Literal["none", "trivial", "rand"] = "none"
    """One random change of colour or geometry, of random strength (trivial: TrivialAugment in its wide space, Müller &
    Hutter 2021), or policy_ops of them of strength policy_magnitude (rand: RandAugment, Cubuk et al. 2020)."""
    policy_ops: int = 2
    """Changes of an image, at least 1 (policy rand only)."""
    policy_magnitude: int = 9
    """Strength of the changes, 0 to 30 (policy rand only)."""
    jitter: float = 0.0
    """Brightness, contrast and saturation, in random order, each times a factor from U(1 - jitter, 1 + jitter), in
    [0, 1). 0 for none; 0.4 is usual. Wrong where labels follow colour."""
    erase: float = 0.0
    """Probability, in [0, 1], that a rectangle of 2 to 40 % of the image, three times as wide as high or the other way
    round at most, becomes grey (the mean colour; Zhong et al. 2020, who use 0.5). 0 for none."""
    cutout: float = 0.0
    """Side of a square that becomes grey, as a share of the image's, in [0, 1). Its centre is any pixel, so part of it
    may be outside (DeVries & Taylor 2017: 0.5 for CIFAR-10, 0.25 for CIFAR-100). 0 for none."""
    mixup: float = 0.0
    """α of mixup, at least 0: image and label become λ times its own and 1 - λ times another's of the batch, λ from
    Beta(α, α) (Zhang et al. 2018: 1 for CIFAR, 0.2 for ImageNet). 0 for none."""
    cutmix: float = 0.0
    """α of CutMix, at least 0: a rectangle of 1 - λ of the area comes from another image of the batch, and so much of
    the label, λ from Beta(α, α) (Yun et al. 2019: 1). 0 for none. With mixup too, a coin decides for each image."""
    mix_share: float = 1.0
    """Probability, in (0, 1], that an image is mixed (mixup and cutmix only; Yun et al. 2019 use 0.5 for CIFAR)."""

    def __post_init__(self) -> None:
        settle(self)
        check_at_least(0, self, "crop_padding")
        check_at_least(1, self, "policy_ops")
        check_rule(self, ("policy_magnitude",), lambda bin: 0 <= bin <= 30, "be 0 to 30")
        check_share(self, "jitter", "cutout")
        check_rule(self, ("resized_crop",), lambda share: 0 < share <= 1, "lie in (0, 1]")
        if self.resized_crop is not None and self.crop_padding:
            reason = f"must be 0 with resized_crop, not {self.crop_padding}: it is one kind of crop or the other"
            raise SettingError("crop_padding", reason)
        check_rule(self, ("erase",), lambda probability: 0 <= probability <= 1, "lie in [0, 1]")
        check_not_negative(self, "mixup", "cutmix")
        check_rule(self, ("mix_share",), lambda probability: 0 < probability <= 1, "lie in (0, 1]")
        if self.alternate_flip and not self.flip:
            raise SettingError("alternate_flip", "must be false where flip is false: no image is mirrored")

    @property
    def mixing(self) -> str | None:
        """The setting by which images are mixed, "mixup" or "cutmix" (mixup if both do); None if none are."""
        return "mixup" if self.mixup else "cutmix" if self.cutmix else None
