"""Files of PyTorch's kind around any pickle, also one that would run code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any


class Touches:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hacked"),))


def zipped(content: bytes) -> bytes:
    """What torch.save writes, with this as its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
    return buffer.getvalue()
