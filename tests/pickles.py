"""Files in PyTorch's format, including some that run code when they are unpickled."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch


class Touches:
    """Creates the file "hacked" in the working folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hacked"),))


def zipped(content: bytes) -> bytes:
    """A file as torch.save writes it, with `content` as its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


def torch_saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()
