from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from emoreg.data.images import files
from emoreg.data.images.files import File
from emoreg.data.stimuli import matlab
from emoreg.data.stimuli.matlab import read_matrix
from emoreg.errors import UserError

MATRIX = np.arange(12).reshape(4, 3)


def saved(path: Path, packed: bool = False, **variables: Any) -> File:
    savemat(path / "x.mat", variables, do_compression=packed)
    return File("x.mat", path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_matrices_are_read_as_by_scipy(kind: str, packed: bool, tmp_path: Path) -> None:
    others = {"before": {"a": 1}, "zz": np.array(["b", 2], object), "words": "some", "flags": MATRIX > 3}
    for matrix in (MATRIX, MATRIX[:1, :1], MATRIX[:1], MATRIX[:, :1]):
        sheet = saved(tmp_path, packed, **others, x=matrix.astype(kind))
        found = read_matrix(sheet, "x")
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, loadmat(tmp_path / "x.mat")["x"])


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2))
    parts += struct.pack(">I", 1 << 16 | 1) + b"x\0\0\0" + element(9, struct.pack(">dd", 0.5, -2))
    content = b"MATLAB 5.0".ljust(124) + b"\1\0MI" + element(14, parts)
    (tmp_path / "x.mat").write_bytes(content)
    assert (
        read_matrix(File("x.mat", tmp_path), "x").tolist() == [[0.5, -2]] == loadmat(tmp_path / "x.mat")["x"].tolist()
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"y": MATRIX}, r"x\.mat has no variable 'x' \(known: y\)"),
        ({"x": {"a": 1}}, "'x' is struct of 1 x 1; it must be a matrix of real numbers"),
        ({"x": np.array(["a", 1], object)}, "'x' is cell of 1 x 2"),
        ({"x": "text"}, "'x' is char of 1 x 4"),
        ({"x": MATRIX * 1j}, "'x' is complex double of 4 x 3"),
        ({"x": np.zeros((2, 2, 2))}, "'x' is double of 2 x 2 x 2"),
        ({"x": np.zeros((0, 3))}, "'x' is double of 0 x 3"),
    ],
)
def test_variables_that_are_not_matrices_of_real_numbers_are_refused(
    variables: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read_matrix(saved(tmp_path, **variables), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.mat is not a MATLAB file of version 5 to 7: save it with save\(\.\.\., '-v7'\)"),
        (b"id,valence\n", "is not a MATLAB file of version 5 to 7"),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "is a MATLAB file of version 7.3: save it with"),
        (b"\x89HDF\r\n\x1a\n", "is a MATLAB file of version 7.3"),
        (b"MATLAB 5.0".ljust(124) + b"\0\1IM", "has no variable 'x'$"),
        (b"MATLAB 5.0".ljust(124) + b"\0\1IM" + b"\x0f\0\0\0\4\0\0\0none", "is a damaged MATLAB file: Error -3"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_matrix(File("x.mat", tmp_path), "x")


def test_version_4_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "x.mat", {"x": MATRIX}, format="4")
    with pytest.raises(UserError, match="version 5 to 7"):
        read_matrix(File("x.mat", tmp_path), "x")


def test_a_duplicate_variable_is_refused(tmp_path: Path) -> None:
    content = (tmp_path / saved(tmp_path, x=MATRIX).name).read_bytes()
    (tmp_path / "x.mat").write_bytes(content + content[128:])
    with pytest.raises(UserError, match="has 'x' 2 times"):
        read_matrix(File("x.mat", tmp_path), "x")


def test_files_with_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """scipy crashes the process on some of these."""
    rng = np.random.default_rng(0)
    wholes = [(tmp_path / saved(tmp_path, packed, x=MATRIX, y={"a": 1}).name).read_bytes() for packed in (False, True)]
    refused = 0
    for number in range(400):
        content = bytearray(wholes[number % 2])
        for place in rng.integers(0, len(content), rng.choice([1, 4, 16])):
            content[place] = rng.integers(0, 256)
        (tmp_path / "x.mat").write_bytes(content[: rng.integers(100, len(content))] if number % 5 == 0 else content)
        try:
            assert read_matrix(File("x.mat", tmp_path), "x").ndim == 2
        except UserError:
            refused += 1
    assert refused > 100


def test_compressed_data_is_limited_to_the_size_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(UserError, match="decompresses to more than 100,000 bytes"):
        read_matrix(saved(tmp_path, True, x=np.zeros((100, 200))), "x")
    pieces = io.BytesIO()
    savemat(pieces, {"x": np.zeros((1, 1))})
    packed = zlib.compress(bytes(60_000))
    part = struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "x.mat").write_bytes(pieces.getvalue() + 2 * part)
    with pytest.raises(UserError, match="more than 100,000 bytes"):
        read_matrix(File("x.mat", tmp_path), "x")
    assert files.MAX_FILE_BYTES > 100_000
