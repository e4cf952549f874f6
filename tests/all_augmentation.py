"""Settings with every kind of augmentation at once."""

from __future__ import annotations

from emoreg.config.augment import AugmentSettings

EVERYTHING = AugmentSettings(
    crop_padding=0,
    resized_crop=0.5,
    alternate_flip=True,
    policy="rand",
    jitter=0.4,
    erase=0.25,
    cutout=0.5,
    mixup=0.8,
    cutmix=1.0,
)
