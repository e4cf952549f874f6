"""Stimuli: the affective images of stage 1, each set in a file of its own."""

from __future__ import annotations

from emoreg.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.images.table import Table
from emoreg.settings import StimuliSettings


def read_stimuli(settings: StimuliSettings, seed: int) -> tuple[Table, EmotionSpace]:
    """The whole set and the space of its labels, before any validation split or limit.

    Args:
        settings: which set, and where.
        seed: of the procedural compositions.

    Raises:
        UserError: the set is missing or malformed; says where and what to do.
    """
    if settings.name == "procedural":
        from emoreg.stimuli import procedural

        images, labels = procedural.compose(settings.count, settings.image_size, seed)
        return Table("procedural", images, labels), VALENCE_AROUSAL
    from emoreg.stimuli import oasis

    return oasis.read_oasis(settings.root, settings.skip_unreadable), VALENCE_AROUSAL
