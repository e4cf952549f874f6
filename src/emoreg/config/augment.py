"""Settings of data augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emoreg.config.rules import check_at_least, check_not_negative, check_rule, check_share
from emoreg.config.setting_types import settle
from emoreg.errors import SettingError


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to training images, drawn separately for each image.

    They are applied in this order: crop, flip, policy, jitter, erase, cutout, then mixup or CutMix.
    """

    crop_padding: int = 4
    """Zero padding in pixels before a random crop back to size; 0 for no crop (He et al. 2016 use 4)."""
    resized_crop: float | None = None
    """Random resized crop (Szegedy et al. 2015): a rectangle of at least this share of the area, in (0, 1], with a
    width of 3/4 to 4/3 of its height, is scaled to the size of the image; 0.08 is usual for ImageNet. It is cut from
    the square image at image_size, so it shows no finer detail; with target.fit pad, crops can reach all of a
    photograph. Needs crop_padding 0. null for none."""
    flip: bool = True
    """Mirror left to right with probability 1/2. Wrong for digits and text."""
    alternate_flip: bool = False
    """With flip: mirror a random half of the images in the first epoch, the other half in the second, and so on, so
    that any two consecutive epochs show each image both ways (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds")."""
    policy: Literal["none", "trivial", "rand"] = "none"
    """trivial: one change of colour or geometry, of random strength (TrivialAugment in its wide space, Müller & Hutter
    2021). rand: policy_ops changes of strength policy_magnitude (RandAugment, Cubuk et al. 2020)."""
    policy_ops: int = 2
    """Number of changes per image, at least 1 (policy rand only)."""
    policy_magnitude: int = 9
    """Strength of the changes, 0 to 30 (policy rand only)."""
    jitter: float = 0.0
    """Multiply brightness, contrast and saturation, in random order, each by a factor from U(1 - jitter, 1 + jitter);
    in [0, 1). 0 for none; 0.4 is usual. Wrong if labels depend on colour."""
    erase: float = 0.0
    """Probability, in [0, 1], that a rectangle of 2 to 40 % of the image, with sides of a ratio of at most 3, becomes
    grey (the mean colour; Zhong et al. 2020, who use 0.5). 0 for none."""
    cutout: float = 0.0
    """Side of a square that becomes grey, as a share of the image's side, in [0, 1). It is centred on a random pixel,
    so part of it may lie outside the image (DeVries & Taylor 2017: 0.5 for CIFAR-10, 0.25 for CIFAR-100). 0 for none.
    """
    mixup: float = 0.0
    """α of mixup, at least 0: image and label become λ times their own plus 1 - λ times those of another image of the
    batch, with λ from Beta(α, α) (Zhang et al. 2018: 1 for CIFAR, 0.2 for ImageNet). 0 for none."""
    cutmix: float = 0.0
    """α of CutMix, at least 0: a rectangle of 1 - λ of the area, and the same share of the label, come from another
    image of the batch, with λ from Beta(α, α) (Yun et al. 2019: 1). 0 for none. If mixup is set too, a coin toss
    decides for each image."""
    mix_share: float = 1.0
    """Probability, in (0, 1], that an image is mixed (mixup and cutmix only; Yun et al. 2019 use 0.5 for CIFAR)."""

    def __post_init__(self) -> None:
        settle(self)
        check_at_least(0, self, "crop_padding")
        check_at_least(1, self, "policy_ops")
        check_rule(self, ("policy_magnitude",), lambda strength: 0 <= strength <= 30, "be 0 to 30")
        check_share(self, "jitter", "cutout")
        check_rule(self, ("resized_crop",), lambda share: 0 < share <= 1, "lie in (0, 1]")
        if self.resized_crop is not None and self.crop_padding:
            reason = f"must be 0 with resized_crop, not {self.crop_padding}: choose one kind of crop"
            raise SettingError("crop_padding", reason)
        check_rule(self, ("erase",), lambda probability: 0 <= probability <= 1, "lie in [0, 1]")
        check_not_negative(self, "mixup", "cutmix")
        check_rule(self, ("mix_share",), lambda probability: 0 < probability <= 1, "lie in (0, 1]")
        if self.alternate_flip and not self.flip:
            raise SettingError("alternate_flip", "must be false if flip is false, since no image is mirrored")

    @property
    def mixing(self) -> str | None:
        """The setting that mixes images, "mixup" or "cutmix" ("mixup" if both are set); None if neither is."""
        return next((name for name in ("mixup", "cutmix") if getattr(self, name)), None)
