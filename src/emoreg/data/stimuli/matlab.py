"""Read a matrix of numbers from a MATLAB file (.mat) of version 5 to 7.

Files are untrusted. scipy.io.loadmat runs no code in them, but on files with randomly changed bytes it crashed the
process (segmentation fault, bus error; scipy 1.17) in both of two runs over 6,000 files. So this module reads the few
elements that make up a matrix itself, after "MAT-File Format" (The MathWorks), chapter 1. Tests compare it with scipy.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.files import MAX_FILE_BYTES, File
from emoreg.errors import UserError, nearest

HDF5 = b"\x89HDF\r\n\x1a\n"  # signature of version 7.3, usually after 512 bytes of MATLAB's own
HEADER = 128  # bytes; the last two give the byte order
MATRIX, COMPRESSED = 14, 15  # table 1-1: kinds of elements; below, the kinds that hold numbers
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
COMPLEX = 0x0800  # flag of arrays, table 1-3; below, the classes of arrays
NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
CLASSES = ("cell", "struct", "object", "char", "sparse", *NUMERIC)  # numbered from 1

Order = Literal["<", ">"]
ORDERS: Mapping[bytes, Order] = {b"IM": "<", b"MI": ">"}


@dataclass(frozen=True)
class _Variable:
    name: str
    kind: str  # one of CLASSES, or "another class"
    shape: tuple[int, ...]
    is_complex: bool
    rest: bytes  # what follows the name: the numbers of a matrix


def read_matrix(sheet: File, variable: str) -> NDArray[np.float64]:
    """Read the matrix (rows, columns) of one variable.

    Raises:
        UserError: the file is not a readable MATLAB file or has no such variable, or the variable is not a matrix of
            real numbers.
    """
    content = sheet.read()
    if HDF5 in (content[512 : 512 + len(HDF5)], content[: len(HDF5)]):
        raise UserError(f"{sheet} is a MATLAB file of version 7.3: save it with save(..., '-v7'), or write a manifest")
    order = ORDERS.get(content[HEADER - 2 : HEADER])
    if order is None:
        raise UserError(f"{sheet} is not a MATLAB file of version 5 to 7: save it with save(..., '-v7')")
    try:
        variables = list(_variables(content, order))
        matches = [candidate for candidate in variables if candidate.name == variable]
        if not matches:
            names = [candidate.name for candidate in variables if candidate.name]
            raise UserError(f"{sheet} has no variable '{variable}'{nearest(variable, names) if names else ''}")
        if len(matches) > 1:
            raise UserError(f"{sheet} has '{variable}' {len(matches)} times")
        matrix = matches[0]
        if matrix.kind not in NUMERIC or matrix.is_complex or len(matrix.shape) != 2 or 0 in matrix.shape:
            size = " x ".join(map(str, matrix.shape))
            kind = f"complex {matrix.kind}" if matrix.is_complex else matrix.kind
            raise UserError(f"{sheet}: '{variable}' is {kind} of {size}; it must be a matrix of real numbers")
        return _numbers(matrix, order)
    except (ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{sheet} is a damaged MATLAB file: {error}") from None


def _variables(content: bytes, order: Order) -> Iterator[_Variable]:
    """The variables of a file, decompressed. ValueError, struct.error or zlib.error if it is damaged."""
    offset, decompressed = HEADER, 0
    while offset < len(content):
        kind, data, offset = _element(content, offset, order, padded=False)
        if kind == COMPRESSED:  # a few kilobytes can hold gigabytes of zeros
            element = zlib.decompressobj().decompress(data, MAX_FILE_BYTES - decompressed + 1)
            decompressed += len(element)
            if decompressed > MAX_FILE_BYTES:
                raise ValueError(f"it decompresses to more than {MAX_FILE_BYTES:,} bytes, the limit for one file")
            kind, data, _ = _element(element, 0, order)
        if kind == MATRIX:
            yield _variable(data, order)


def _variable(data: bytes, order: Order) -> _Variable:
    _, flags, offset = _element(data, 0, order)
    (word,) = struct.unpack_from(f"{order}I", flags)
    number = word & 0xFF
    if not 1 <= number <= len(CLASSES):  # functions and so on, which have another layout
        return _Variable("", "another class", (), False, b"")
    _, sizes, offset = _element(data, offset, order)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    _, name, offset = _element(data, offset, order)
    return _Variable(name.decode("latin-1"), CLASSES[number - 1], shape, bool(word & COMPLEX), data[offset:])


def _numbers(variable: _Variable, order: Order) -> NDArray[np.float64]:
    kind, data, _ = _element(variable.rest, 0, order)
    if kind not in NUMBERS:
        raise ValueError(f"its numbers are of kind {kind}")
    numbers = np.frombuffer(data, f"{order}{NUMBERS[kind]}").astype(np.float64)
    if min(variable.shape) < 0 or math.prod(variable.shape) != len(numbers):
        raise ValueError(f"it has {len(numbers):,} numbers instead of {' x '.join(map(str, variable.shape))}")
    return numbers.reshape(variable.shape, order="F")


def _element(data: bytes, offset: int, order: Order, padded: bool = True) -> tuple[int, bytes, int]:
    """Kind and content of the element at an offset, and the offset of the next element."""
    kind, length = struct.unpack_from(f"{order}II", data, offset)
    if kind >> 16:  # a small element: at most four bytes, within the tag
        kind, length = kind & 0xFFFF, kind >> 16
        start, end = offset + 4, offset + 8
    else:
        start = offset + 8
        end = start + (-(-length // 8) * 8 if padded else length)
    if start + length > min(len(data), end):
        raise ValueError("it is cut off")
    return kind, data[start : start + length], end
