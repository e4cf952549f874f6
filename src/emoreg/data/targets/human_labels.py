"""Labels that people gave to CIFAR's training images: CIFAR-10N and CIFAR-100N (Wei et al. 2022).

"Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations", ICLR 2022. The published files are
PyTorch's and come from strangers: only plain values and NumPy arrays are unpickled, and no code is run.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoreg.config.label_noise import LabelNoise
from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, UserError, shortened
from emoreg.runtime.safe_io import read_bounded

SOURCE = "https://github.com/UCSC-REAL/cifar-10-100n"
FILES: Mapping[str, str] = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}
MAX_BYTES = 16 * 2**20  # the published files have 2.4 and 1.0 MB

# The key of the labels in the file, and their SHA-256 as little-endian int64, in the order of the images. A run's
# identity contains only the name of these labels, so labels that differ from the published ones are refused.
PUBLISHED: Mapping[LabelNoise, tuple[str, str]] = {
    "aggre": ("aggre_label", "b3c3d486d22c3055756e7b1b1a0e98b099c1d68b771633023b0f76fa2e09ede6"),
    "random1": ("random_label1", "b5dc9007ae247a48ce267bec37a1310b0cd65ed73801ca7e595fb954902575a7"),
    "random2": ("random_label2", "1182c45d3a24636640fe1e3743b9566b6fabe86b2ed14f6b8216799e209a0d4e"),
    "random3": ("random_label3", "b51e116c617ded2c98be095ba8b3abae8adfa6caa54f7f6eedf50c7aed013d44"),
    "worse": ("worse_label", "a64d887522cf6d8f4966912a1536ea2d890600929a8465a7f307cdca2501847b"),
    "noisy": ("noisy_label", "4a1efd5da7a214b299cf6ac0bafe3f0d48c065b7aa2d40aa185d4711714bb311"),
}


def human_labels(train: Table, settings: TargetSettings) -> NDArray[np.int64]:
    """Read people's labels (N,) of all training images, right and wrong ones.

    Args:
        train: all training images of the set with their true labels, in the published order.
        settings: name, root (the file is in it, or beside it) and label_noise are used.

    Raises:
        SettingError: the file does not exist.
        UserError: the file is damaged, its labels are not the published ones, or the images are in another order.
    """
    path = _find(settings)
    key, sha256 = PUBLISHED[settings.label_noise]
    content = _load(path)
    clean = _labels(path, content, "clean_label")
    if not np.array_equal(clean, train.labels):
        difference = f"{len(clean):,} clean labels, not {len(train):,}"
        if len(clean) == len(train):
            difference = f"{np.count_nonzero(clean != train.labels):,} of its {len(clean):,} clean labels differ"
        raise UserError(
            f"{path} does not belong to these images of {train.name} in their order: {difference}; read them from the "
            "published archive, or a pack of it, because images in folders have lost their order"
        )
    labels = _labels(path, content, key)
    if hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest() != sha256:
        raise UserError(f"{path}: {key} are not the labels that were published; get the file from {SOURCE}")
    return labels


def _find(settings: TargetSettings) -> Path:
    """Find the published file in the target's folder or beside it."""
    root, name = Path(settings.root or "data"), FILES[settings.name.lower()]
    for path in (root / name, root.parent / name):
        if path.exists():
            return path
    reason = f"{settings.label_noise} needs {name} in {root} or beside it; it is published at {SOURCE}"
    raise SettingError("target.label_noise", reason)


def _load(path: Path) -> dict[Any, Any]:
    """Unpickle a file. UserError if it cannot be read, or contains anything but plain values and arrays."""
    import torch

    # The function that unpickles arrays has one name before NumPy 2 and another since.
    reconstruct: Any = np.empty(0).__reduce__()[0]
    names = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    allowed: list[Any] = [*names, np.ndarray, np.dtype, type(np.dtype(np.int64))]
    try:
        raw = read_bounded(path, MAX_BYTES)
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise UserError(f"unpacked it is larger than {MAX_BYTES:,} bytes")
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings(action="ignore"):  # about odd pickles
            content = torch.load(io.BytesIO(raw), "cpu", weights_only=True)
    except pickle.UnpicklingError:  # also for disallowed content; PyTorch's message is for programmers
        raise UserError(
            f"{path} is damaged, or holds more than labels, which is not read; get it from {SOURCE}"
        ) from None
    except Exception as error:  # readers raise nearly anything on broken bytes
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as {SOURCE} publishes it: {shortened(reason, 150)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no labels by name, as {SOURCE} publishes them")
    return content


def _labels(path: Path, content: Mapping[Any, Any], key: str) -> NDArray[np.int64]:
    labels = content.get(key)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind != "i" or labels.ndim != 1:
        raise UserError(f"{path} has no labels '{key}', a number for each image")
    return labels.astype(np.int64)
