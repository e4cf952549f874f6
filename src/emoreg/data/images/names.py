"""The names of splits and classes, as people write them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: Mapping[str, Split] = {  # by the words for them; where a set has two for one, the first is taken
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def composed(name: str) -> str:
    """The name in Unicode's composed form: macOS writes é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)
