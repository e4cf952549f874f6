"""Malformed label files of every set, and manifests."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from data.stimuli.layouts import LAYOUTS, file_of
from hostile.malformed import Content, Malformed
from hostile.set_inputs import DEEP, RECIPE, png, pretrain

# Each change is applied to the table of each set.
CSV_SETS = ("abstract", "emotion6", "oasis", "emod", "manifest", "diffused_emod")
CSV_CHANGES: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "nothing but line ends": lambda text: b"\n\r\n\r",
    "a header alone": lambda text: text.splitlines()[0],
    "null bytes": lambda text: text + b"\n\0\0\0",
    "an image": lambda text: png(),
    "half of UTF-16": lambda text: b"\xff\xfe" + text.decode().encode("utf-16-le")[:-1],
    "a row of another length": lambda text: text.rstrip() + text.rstrip()[-2:-1] + b",\t,\t,\t9\n",
    "a field of a megabyte": lambda text: text.rstrip() + b"\n" + b"x" * 2**20,
    "a first column that is missing": lambda text: text.replace(first_name(text), b"nothing", 1),
}


def first_name(text: bytes) -> bytes:
    """A required column of the table."""
    return next(name for name in (b"Amusement", b"image_filename", b"Theme", b"path") if name in text)


CELLS: tuple[tuple[str, str, bytes, bytes, str], ...] = (
    # set, name, bytes of the table, their replacement, place that the message must name
    ("abstract", "text for a vote", b",1,0,7,", b",1,0,many,", "row 2: Awe"),
    ("abstract", "a negative vote", b",1,0,7,", b",1,0,-7,", "row 2: Awe"),
    ("abstract", "no vote", b",1,0,7,2,0,1,0,3", b",0,0,0,0,0,0,0,0", "row 2"),
    ("abstract", "infinite votes", b",1,0,7,", b",1,0,1e400,", "row 2: Awe"),
    ("abstract", "a quote that is left open", b"'abstract_0002.jpg'", b"'abstract_0002.jpg", "groundTruth.csv"),
    ("abstract", "a path that leads outside", b"abstract_0001.jpg", b"../../../../etc/passwd", "row 2"),
    ("abstract", "an image twice", b"abstract_0002.jpg", b"abstract_0001.jpg", "row 3"),
    ("emotion6", "a rating off the scale", b"\t2.5\t", b"\t11\t", "row 2: valence"),
    ("emotion6", "no rating", b"\t2.5\t", b"\t\t", "row 2: valence"),
    ("emotion6", "a rating with a decimal comma", b"\t2.5\t", b"\t2,5\t", "row 2: valence"),
    ("emotion6", "a probability that is not a number", b"0.133333", b"nan", "row 2: prob. anger"),
    ("emotion6", "a missing image", b"joy/1.jpg", b"joy/99.jpg", "row 3"),
    ("emotion6", "an image whose name has a null byte", b"joy/1.jpg", b"joy/1\0.jpg", "ground_truth.txt"),
    ("oasis", "a rating off the scale", b",4.0,", b",0.5,", "row 2: Valence_mean"),
    ("oasis", "a rating in other digits", b",4.0,", ",四,".encode(), "row 2: Valence_mean"),
    ("oasis", "a theme of line ends", b"Dog 6 ", b'"Dog\n\n6"', "row 3"),
    ("oasis", "a theme with terminal codes", b"Dog 6 ", b"\x1b[2J\x1b[31m", "row 3"),
    ("oasis", "a theme of 5,000 characters", b"Dog 6 ", b"x" * 5000, "row 3"),
    ("manifest", "no path", b"images/b.jpg", b"", "row 3: path"),
    ("manifest", "a path that is absolute", b"images/b.jpg", b"/nowhere/b.jpg", "row 3"),
    ("manifest", "a path to a device", b"images/b.jpg", b"/dev/zero", "row 3"),
    ("manifest", "a path to a folder", b"images/b.jpg", b"images", "row 3"),
    ("manifest", "a column that is misspelt", b"valence", b"valense", "valense"),
    ("manifest", "a column twice", b"arousal", b"valence", "valence"),
    ("manifest", "valence from 1 to 9", b",0.5,", b",7,", "row 2: valence"),
    ("manifest", "a vote below zero", b",3,1,", b",-3,1,", "row 2: p_awe"),
    ("manifest", "no emotion", b"a.jpg,awe", b"a.jpg,", "row 2"),
    ("manifest", "an emotion that is misspelt", b"a.jpg,awe", b"a.jpg,amusment", "row 2"),
    ("manifest", "an emotion with terminal codes", b"a.jpg,awe", b"a.jpg,\x1b[31mred", "row 2"),
    ("manifest", "an emotion with a line end", b"a.jpg,awe", b'a.jpg,"o\nh"', "row 2"),
    ("manifest", "an unknown split", b",train", b",trian", "row 2"),
    ("manifest", "some rows without a split", b",train", b",", "row 2"),
    ("manifest", "two columns of one emotion", b"p_sad", b"p_Awe", "p_awe"),
    ("diffused_emod", "a manifest without labels", b"emotion", b"feelings", "manifest.csv"),
)
EMOSET: tuple[tuple[str, bytes, str], ...] = (
    ("empty", b"", "train.json"),
    ("not JSON", b"awe, image/awe/awe_00001.jpg", "train.json"),
    ("JSON cut off", b'[["awe", "image/awe/awe_0', "train.json"),
    ("nested brackets", b"[" * DEEP, "train.json"),
    ("nested objects", b'{"a":' * DEEP, "train.json"),
    ("an object", b'{"awe": "image/awe/awe_00001.jpg"}', "train.json"),
    ("an empty list", b"[]", "train.json"),
    ("numbers for rows", b"[1, 2, 3]", "row 1"),
    ("numbers for paths", b'[["awe", 1, 2]]', "row 1"),
    ("a row that is too short", b'[["awe"]]', "row 1"),
    ("an id for an image", b'[["awe", "awe_00001", "image/awe/awe_00001.jpg"]]', "row 1"),
    ("a row that is too long", b'[["awe", "awe_1", "image/awe/awe_00001.jpg", "a.json", 5]]', "row 1"),
    ("an unknown emotion", b'[["ave", "image/awe/awe_00001.jpg", ""]]', "row 1"),
    ("a number of 5,000 digits", b"[" + b"9" * 5000 + b"]", "train.json"),
    ("bytes that are not Unicode", b'[["awe", "\xff\xfe\xfd", ""]]', "train.json"),
    ("half a surrogate", b'[["awe", "\\ud800.jpg", ""]]', "row 1"),
    ("a path that leads outside", b'[["awe", "../../../../etc/passwd", ""]]', "row 1"),
)
INFO: tuple[tuple[str, bytes, str], ...] = (
    ("other emotions", b'{"emotion": {"label2idx": {"calm": 0, "\\u001b[31m": 1}}}', "label2idx"),
    ("a list of emotions", b'{"emotion": ["awe"]}', "info.json"),
    ("a list", b"[]", "info.json"),
)
LINES: tuple[tuple[str, bytes, str], ...] = (
    ("not JSON", b"path,emotion\n", "row 1"),
    ("a list for an object", b'["a.jpg", "awe"]\n', "row 1"),
    ("an object cut off", b'{"path": "a.jpg", "emotion": "awe"}\n{"path": "b.j', "row 2"),
    ("nested brackets", b'{"path": ' + b"[" * DEEP, "row 1"),
    ("bytes that are not Unicode", b'{"path": "\xff"}\n', "row 1"),
    ("an empty file", b"", "manifest.jsonl"),
    ("a list for an emotion", b'{"path": "a.jpg", "emotion": ["joy"]}\n', "row 1: emotion"),
    ("a boolean for an emotion", b'{"path": "a.jpg", "emotion": true}\n', "row 1: emotion"),
    ("a number for an emotion", b'{"path": "a.jpg", "emotion": 1.0}\n', "row 1: emotion"),
    ("a key twice", b'{"path": "a.jpg", "path": "b.jpg", "emotion": "joy"}\n', "row 1"),
    ("one emotion alone", b'{"path": "a.jpg", "emotion": "joy"}\n', "all 1 training images are 'joy'"),
    ("a p-value for an emotion", b'{"path": "a.jpg", "p_value": 0.04}\n', "'p_value'"),
    ("a p-value among emotions", b'{"path": "a.jpg", "p_value": 0.04, "p_joy": 0.2}\n', "'p_value'"),
    ("an object for a path", b'{"path": {"a": 1}, "emotion": "awe"}\n', "row 1"),
    ("a list for a number", b'{"path": "a.jpg", "valence": [0.5]}\n', "row 1: valence"),
    ("a boolean for a number", b'{"path": "a.jpg", "valence": true}\n', "row 1: valence"),
    ("a number of 5,000 digits", b'{"path": "a.jpg", "valence": ' + b"9" * 5000 + b"}\n", "row 1"),
    ("Python's NaN", b'{"path": "a.jpg", "valence": NaN}\n', "row 1: valence"),
)


def parquet(**columns: object) -> bytes:
    return pd.DataFrame(columns).to_parquet()


def equal_rows(count: int) -> bytes:
    """A Parquet file of a few kilobytes with many equal rows."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    buffer = io.BytesIO()
    table = pa.table({"path": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array(["a.jpg"]))})
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def parquets() -> Iterator[tuple[str, bytes, str]]:
    whole = parquet(path=["a.jpg", "b.jpg"], emotion=["awe", "fear"])
    yield "an empty file", b"", "manifest.parquet"
    yield "an image", png(), "manifest.parquet"
    yield "the four letters alone", b"PAR1PAR1", "manifest.parquet"
    yield "cut in half", whole[: len(whole) // 2], "manifest.parquet"
    yield "a damaged footer", whole[:-60] + bytes(40) + whole[-20:], "manifest.parquet"
    yield "damaged pages", whole[:4] + bytes(60) + whole[64:], "manifest.parquet"
    yield "no path", parquet(image=["a.jpg"], emotion=["awe"]), "manifest.parquet"
    yield "lists for paths", parquet(path=[["a.jpg"]], emotion=["awe"]), "row 1"
    yield "bytes for paths", parquet(path=[b"a.jpg"], emotion=["awe"]), "row 1"
    yield "times for valence", parquet(path=["a.jpg"], valence=np.array(["2024-02-03"], "datetime64[ns]")), "row 1"
    yield "nothing for valence", parquet(path=["a.jpg"], valence=[None]), "row 1: valence"
    yield "six million rows in a few kilobytes", equal_rows(6_000_000), "6,000,000 rows"


def matrices() -> Iterator[tuple[str, bytes, str]]:
    """EMOd's MATLAB file, with a row for 1.jpg and one for 2.jpg."""
    from scipy.io import savemat

    def saved(values: object, variable: str = "allfindata1019", **options: object) -> bytes:
        buffer = io.BytesIO()
        savemat(buffer, {variable: values}, **options)
        return buffer.getvalue()

    def changed(row: int, column: int, value: float) -> bytes:
        table = good.copy()
        table[row, column] = value
        return saved(table)

    sheet = "allfindata1019_renamed.mat"
    good = np.full((2, 15), 3.0)
    good[:, 0] = 1, 2
    whole, packed = saved(good), saved(good, do_compression=True)
    yield "an empty file", b"", sheet
    yield "text", b"1,2,3", sheet
    yield "version 4", saved(good, format="4"), "'-v7'"
    yield "version 7.3", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "version 7.3"
    yield "cut in half", whole[: len(whole) // 2], sheet
    yield "packed and cut in half", packed[: len(packed) // 2], sheet
    yield "packed and damaged", packed[:150] + bytes(20) + packed[170:], sheet
    yield "more rows than numbers", whole.replace(b"\2\0\0\0\x0f\0\0\0", b"\xff\xff\xff\x7f\x0f\0\0\0"), sheet
    yield "rows below zero", whole.replace(b"\2\0\0\0\x0f\0\0\0", b"\xfe\xff\xff\xff\x0f\0\0\0"), sheet
    yield "another variable", saved(good, "allfindata"), "'allfindata1019'"
    yield "a structure", saved({"id": good}), "'allfindata1019' is struct"
    yield "cells", saved(np.array([[1, "two"]], object)), "'allfindata1019' is cell"
    yield "text for numbers", saved("allfindata"), "'allfindata1019' is char"
    yield "complex numbers", saved(good * 1j), "complex"
    yield "five columns", saved(good[:, :5]), "5 columns"
    yield "an id that is not a number", changed(1, 0, np.nan), "row 2: column 1"
    yield "an id twice", changed(1, 0, 1), "row 2"
    yield "an infinite rating", changed(1, 3, np.inf), "row 2: valence"
    yield "ratings on another scale", changed(1, 3, 500), sheet
    yield "a missing image", changed(1, 0, 7), "row 2"


def label_inputs() -> Iterator[Malformed]:
    for name in CSV_SETS:
        (sheet, text), *_ = LAYOUTS[name].sheets.items()
        for what, change in CSV_CHANGES.items():
            files: dict[str, Content] = {f"set/{sheet}": change(text.encode())}
            yield Malformed("label file", f"{name}: {what}", RECIPE | files, pretrain(name, "set"), sheet)
    for name, what, old, new, place in CELLS:
        (sheet, text), *_ = LAYOUTS[name].sheets.items()
        assert old in text.encode()
        images: dict[str, Content] = {f"set/{file_of(name, image)}": png() for image in LAYOUTS[name].images}
        files = {f"set/{sheet}": text.encode().replace(old, new), **images}
        yield Malformed("label file", f"{name}: {what}", RECIPE | files, pretrain(name, "set"), place)
    for what, content, place in EMOSET:
        yield Malformed(
            "label file", f"emoset: {what}", RECIPE | {"set/train.json": content}, pretrain("emoset", "set"), place
        )
    for what, content, place in INFO:
        files = {"set/train.json": "[]", "set/info.json": content}
        yield Malformed("label file", f"emoset: info with {what}", RECIPE | files, pretrain("emoset", "set"), place)
    for what, content, place in LINES:
        files = {"set/manifest.jsonl": content, "set/a.jpg": png()}
        yield Malformed("label file", f"JSON Lines: {what}", RECIPE | files, pretrain("manifest", "set"), place)
    for what, content, place in parquets():
        files = {"set/manifest.parquet": content, "set/a.jpg": png()}
        yield Malformed("label file", f"Parquet: {what}", RECIPE | files, pretrain("manifest", "set"), place)
    for what, content, place in matrices():
        files = {f"set/EMOdImages1019/{number}.jpg": png() for number in (1, 2)}
        files["set/allfindata1019_renamed.mat"] = content
        yield Malformed("label file", f"emod: {what}", RECIPE | files, pretrain("emod", "set"), place)
    for what, paths, name, place in (
        ("a spreadsheet", ("set/manifest.xlsx",), "manifest", "manifest"),
        ("a name without an emotion", ("set/photo.jpg",), "artphoto", "photo.jpg"),
        ("a name with a strange emotion", ("set/calm_1.jpg",), "artphoto", "calm_1.jpg"),
        ("one emotion of eight", ("set/awe/1.jpg",), "fi", "amusement"),
        ("images outside of folders", ("set/1.jpg",), "emotion_folder", "set"),
        (
            "splits below the emotions",
            tuple(f"set/{emotion}/{split}/1.jpg" for emotion in ("awe", "fear") for split in ("train", "test")),
            "emotion_folder",
            "train",
        ),
        ("a misspelt folder", ("set/amusment/1.jpg", "set/awe/1.jpg"), "emotion_folder", "amusment"),
        ("a folder with terminal codes", ("set/\x1b[31m/1.jpg", "set/awe/1.jpg"), "emotion_folder", "[31m"),
    ):
        yield Malformed(
            "label file", f"{name}: {what}", RECIPE | dict.fromkeys(paths, png()), pretrain(name, "set"), place
        )
