"""Names of splits and classes, as people spell them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: Mapping[str, Split] = {  # by spelling; if a set uses two spellings of one split, the first here is preferred
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS writes é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)
