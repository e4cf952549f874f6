"""Stimuli: the affective images of stage 1, each set in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emoreg.emotion import VALENCE_AROUSAL
from emoreg.errors import UserError, nearest
from emoreg.images.table import About
from emoreg.settings import StimuliSettings
from emoreg.stimuli import abstract, oasis, procedural
from emoreg.stimuli.stimuli import Labels, Stimuli

# A new set is one file that has ABOUT and read(), and one line here.
SETS: Mapping[str, tuple[About, Callable[[str | None, bool], Stimuli]]] = {
    "abstract": (abstract.ABOUT, abstract.read),
    "oasis": (oasis.ABOUT, oasis.read),
}


def read_stimuli(settings: StimuliSettings, seed: int) -> Stimuli:
    """The whole set, before any choice of labels, validation split or limit.

    Args:
        settings: which set, and where.
        seed: of the procedural compositions.

    Raises:
        UserError: the set is unknown, missing or malformed; says where and what to do.
    """
    if settings.name == "procedural":
        images, labels = procedural.compose(settings.count, settings.image_size, seed)
        return Stimuli("procedural", images, (Labels(VALENCE_AROUSAL, labels),))
    if settings.name not in SETS:
        raise UserError(f"stimuli.name: no set '{settings.name}'{nearest(settings.name, ['procedural', *SETS])}")
    _, read = SETS[settings.name]
    return read(settings.root, settings.skip_unreadable)
