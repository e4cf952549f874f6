"""A matrix of numbers from a MATLAB file (.mat) of version 5 to 7.

Files come from strangers. scipy.io.loadmat runs no code in them, but in both of two runs over 6,000 files whose bytes
were changed at random it ended the process (segmentation fault, bus error; scipy 1.17). So the few elements that make
up a matrix are read here, as "MAT-File Format" (The MathWorks), chapter 1, has them; the tests compare with scipy.
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

HDF5 = b"\x89HDF\r\n\x1a\n"  # how version 7.3 begins, behind 512 bytes of MATLAB's own
HEADER = 128  # bytes, of which the last two say the byte order
MATRIX, COMPRESSED = 14, 15  # table 1-1: kinds of elements, and of those that hold numbers
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
COMPLEX = 0x0800  # table 1-3: classes of arrays, and their flags
NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
CLASSES = ("cell", "struct", "object", "char", "sparse", *NUMERIC)  # from 1

Order = Literal["<", ">"]
ORDERS: Mapping[bytes, Order] = {b"IM": "<", b"MI": ">"}


@dataclass(frozen=True)
class _Variable:
    name: str
    kind: str  # one of CLASSES, or "another class"
    shape: tuple[int, ...]
    is_complex: bool
    rest: bytes  # behind the name: the numbers of a matrix


def read_matrix(sheet: File, variable: str) -> NDArray[np.float64]:
    """The numbers (rows, columns) of one variable.

    Raises:
        UserError: it is no MATLAB file that can be read, has no such variable, or this is no matrix of real numbers.
    """
    content = sheet.read()
    if HDF5 in (content[512 : 512 + len(HDF5)], content[: len(HDF5)]):
        raise UserError(f"{sheet} is of MATLAB's version 7.3: save it with save(..., '-v7'), or write a manifest")
    order = ORDERS.get(content[HEADER - 2 : HEADER])
    if order is None:
        raise UserError(f"{sheet} is no MATLAB file of version 5 to 7: save it with save(..., '-v7')")
    try:
        there = list(_variables(content, order))
        named = [one for one in there if one.name == variable]
        if len(named) != 1:
            others = [one.name for one in there if one.name]
            what = f"has '{variable}' {len(named)} times" if named else f"has no variable '{variable}'"
            raise UserError(f"{sheet} {what}{nearest(variable, others) if others and not named else ''}")
        (found,) = named
        if found.kind not in NUMERIC or found.is_complex or len(found.shape) != 2 or 0 in found.shape:
            size = " x ".join(map(str, found.shape))
            what = f"{'complex ' if found.is_complex else ''}{found.kind} of {size}"
            raise UserError(f"{sheet}: '{variable}' is {what}; it must be a matrix of real numbers")
        return _numbers(found, order)
    except (ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{sheet} is a damaged MATLAB file: {error}") from None


def _variables(content: bytes, order: Order) -> Iterator[_Variable]:
    """The variables of a file, unpacked. ValueError, struct.error or zlib.error if it is damaged."""
    place, unpacked = HEADER, 0
    while place < len(content):
        kind, data, place = _element(content, place, order, padded=False)
        if kind == COMPRESSED:  # a few kilobytes can stand for gigabytes of zeros
            whole = zlib.decompressobj().decompress(data, MAX_FILE_BYTES - unpacked + 1)
            unpacked += len(whole)
            if unpacked > MAX_FILE_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_FILE_BYTES:,} bytes, the limit for one file")
            kind, data, _ = _element(whole, 0, order)
        if kind == MATRIX:
            yield _variable(data, order)


def _variable(data: bytes, order: Order) -> _Variable:
    _, flags, place = _element(data, 0, order)
    (word,) = struct.unpack_from(f"{order}I", flags)
    number = word & 0xFF
    if not 1 <= number <= len(CLASSES):  # functions and the like, which have another form
        return _Variable("", "another class", (), False, b"")
    _, sizes, place = _element(data, place, order)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    _, name, place = _element(data, place, order)
    return _Variable(name.decode("latin-1"), CLASSES[number - 1], shape, bool(word & COMPLEX), data[place:])


def _numbers(variable: _Variable, order: Order) -> NDArray[np.float64]:
    kind, data, _ = _element(variable.rest, 0, order)
    if kind not in NUMBERS:
        raise ValueError(f"its numbers are of kind {kind}")
    numbers = np.frombuffer(data, f"{order}{NUMBERS[kind]}").astype(np.float64)
    if min(variable.shape) < 0 or math.prod(variable.shape) != len(numbers):
        raise ValueError(f"it has {len(numbers):,} numbers where it says {' x '.join(map(str, variable.shape))}")
    return numbers.reshape(variable.shape, order="F")


def _element(data: bytes, place: int, order: Order, padded: bool = True) -> tuple[int, bytes, int]:
    """Kind and content of the element at a place, and the place of the next one."""
    kind, length = struct.unpack_from(f"{order}II", data, place)
    if kind >> 16:  # four bytes or less, in the tag itself
        kind, length = kind & 0xFFFF, kind >> 16
        start, end = place + 4, place + 8
    else:
        start = place + 8
        end = start + (-(-length // 8) * 8 if padded else length)
    if start + length > min(len(data), end):
        raise ValueError("it is cut off")
    return kind, data[start : start + length], end
