"""Stimuli, the affective images of stage 1: one module per set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emoreg.config.schema import StimuliSettings
from emoreg.data.embedded import refuse_root
from emoreg.data.images.hugging_face import PREFIX
from emoreg.data.images.packed import Pack, is_pack, open_pack
from emoreg.data.images.table import About
from emoreg.data.stimuli import (
    abstract,
    artphoto,
    diffused_emod,
    emod,
    emoset,
    emotion6,
    emotion_folder,
    fi,
    hugging_face,
    manifest,
    oasis,
    procedural,
)
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import SettingError, nearest

# To add a set, write a module with ABOUT and read(), and add one line here.
SETS: Mapping[str, tuple[About, Callable[[str | None, bool], Stimuli]]] = {
    "emoset": (emoset.ABOUT, emoset.read),
    "abstract": (abstract.ABOUT, abstract.read),
    "emod": (emod.ABOUT, emod.read),
    "diffused_emod": (diffused_emod.ABOUT, diffused_emod.read),
    "artphoto": (artphoto.ABOUT, artphoto.read),
    "emotion6": (emotion6.ABOUT, emotion6.read),
    "fi": (fi.ABOUT, fi.read),
    "oasis": (oasis.ABOUT, oasis.read),
    "emotion_folder": (emotion_folder.ABOUT, emotion_folder.read),
    "manifest": (manifest.ABOUT, manifest.read),
}

# How many images each set has according to its authors. Sets that users make themselves are missing here.
PUBLISHED: Mapping[str, Published] = {
    "emoset": emoset.PUBLISHED,
    "abstract": abstract.PUBLISHED,
    "emod": emod.PUBLISHED,
    "artphoto": artphoto.PUBLISHED,
    "emotion6": emotion6.PUBLISHED,
    "fi": fi.PUBLISHED,
    "oasis": oasis.PUBLISHED,
}

# Targets whose classes can serve as stimuli, for positive controls (`stages.class_stimuli`).
WITH_CLASSES = ("cifar10", "cifar100", "digits", "folder")


def read_stimuli(settings: StimuliSettings, seed: int) -> Stimuli:
    """Read a whole set, with all its labels and splits.

    Args:
        settings: name and location of the set.
        seed: seed of the procedural compositions; other sets ignore it.

    Raises:
        UserError: the set is unknown, missing or malformed.
    """
    if settings.root is not None and is_pack(settings.root):
        return _read_pack(open_pack(settings.root, "stimuli", settings.name, settings.image_size, settings.fit))
    refuse_root(settings)
    if settings.name == "procedural":
        images, labels = procedural.compose(settings.count, settings.image_size, seed)
        return Stimuli("procedural", images, (Labels(VALENCE_AROUSAL, labels),))
    if settings.name.lower().startswith(PREFIX):
        return hugging_face.read(settings.name, settings.root)
    if settings.name not in SETS:
        known = nearest(settings.name, ["procedural", *SETS, *WITH_CLASSES])
        raise SettingError("stimuli.name", f"no set '{settings.name}'{known}")
    _, read = SETS[settings.name]
    return read(settings.root, settings.skip_unreadable)


def _read_pack(pack: Pack) -> Stimuli:
    emotions, neutral = [], None
    for labels in pack.labels:
        match labels.kind:
            case "neutral":
                neutral = Labels(EmotionSpace("category", labels.names), labels.values)
            case "category" | "votes" | "dimensions":
                emotions.append(Labels(EmotionSpace(labels.kind, labels.names), labels.values))
    splits = None if pack.splits is None else pack.splits.tolist()
    return Stimuli(pack.title, pack.images, tuple(emotions), splits, neutral=neutral)
