"""The sets that need no files: emoreg draws them, or a library brings them."""

from __future__ import annotations

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.images.packed import is_pack
from emoreg.errors import SettingError

EMBEDDED = ("procedural", "digits")


def refuse_root(settings: StimuliSettings | TargetSettings) -> None:
    """Raise SettingError for a root of such a set, which would go unread; packs have one.

    These sets are the defaults, so whoever forgets the name beside a root would train on them.
    """
    if settings.name.lower() not in EMBEDDED or settings.root is None or is_pack(settings.root):
        return
    section, others = "target", "folder for folders of classes, or a set's name"
    if isinstance(settings, StimuliSettings):
        section, others = "stimuli", "emotion_folder or manifest for images of your own, or a published set"
    reason = f"must be null for {settings.name}, which has no files, not {settings.root}: name the set that is there"
    raise SettingError(f"{section}.root", f"{reason} in {section}.name ({others}), or leave the root out")
