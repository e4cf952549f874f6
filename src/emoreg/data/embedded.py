"""The sets that need no files: emoreg draws them, or a library brings them."""

from __future__ import annotations

import dataclasses

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.images.packed import is_pack
from emoreg.errors import SettingError

EMBEDDED = ("procedural", "digits")


def has_unread_root(settings: StimuliSettings | TargetSettings) -> bool:
    """Whether such a set has a root, which nothing reads; packs have one that is read."""
    return settings.name.lower() in EMBEDDED and settings.root is not None and not is_pack(settings.root)


def refuse_root(settings: StimuliSettings | TargetSettings) -> None:
    """Raise SettingError for a root that nothing reads.

    These sets are the defaults, so whoever forgets the name beside a root would train on them.
    """
    if not has_unread_root(settings):
        return
    section, others = "target", "folder for folders of classes, or a set's name"
    if isinstance(settings, StimuliSettings):
        section, others = "stimuli", "emotion_folder or manifest for images of your own, or a published set"
    reason = f"must be null for {settings.name}, which has no files, not {settings.root}: name the set that is there"
    raise SettingError(f"{section}.root", f"{reason} in {section}.name ({others}), or leave the root out")


def without_unread_root(settings: TargetSettings) -> TargetSettings:
    """The settings of a run's target without a root that nothing reads, which an earlier emoreg did not refuse."""
    return dataclasses.replace(settings, root=None) if has_unread_root(settings) else settings
