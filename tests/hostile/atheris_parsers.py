"""Coverage-guided fuzzing of the parsers with atheris. Not collected by pytest; needs `pip install atheris`.

    python tests/hostile/atheris_parsers.py recipe -max_total_time=60
    python tests/hostile/atheris_parsers.py all -max_total_time=60      # each parser for 60 seconds

It stops at any exception except UserError, and at any message of several lines, and saves the input that caused it.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import atheris

with atheris.instrument_imports(include=["emoreg", "yaml", "zipfile", "csv"]):
    from emoreg.config.read_recipe import read_recipe
    from emoreg.config.recipe import TrainRecipe
    from emoreg.data.images.decode import decode
    from emoreg.data.images.files import File, list_files
    from emoreg.data.images.packed import open_pack
    from emoreg.data.stimuli import SETS
    from emoreg.errors import UserError
    from emoreg.runs.run import Run
    from emoreg.study.read_study import read_study

from data.stimuli.layouts import LAYOUTS, file_of
from hostile.set_inputs import encoded, pack_into, zipped

HOME = Path(tempfile.mkdtemp(prefix="emoreg-atheris-"))


def parser_of(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a function that writes bytes into a file of this name and reads it."""

    def run(content: bytes) -> object:
        path = HOME / name
        path.write_bytes(content)
        return read(path)

    return run


def label_file(name: str) -> Callable[[bytes], object]:
    root = HOME / name
    for image in LAYOUTS[name].images:
        (root / file_of(name, image)).parent.mkdir(parents=True, exist_ok=True)
        (root / file_of(name, image)).touch()
    return parser_of(f"{name}/{next(iter(LAYOUTS[name].sheets))}", lambda path: SETS[name][1](str(root), False))


def pack_description() -> Callable[[bytes], object]:
    if not (HOME / "pack").exists():
        pack_into(HOME / "pack")
    return parser_of("pack/pack.json", lambda path: open_pack(path.parent, "target"))


def all_files(path: Path) -> None:
    for file in list_files(path):
        file.read()


SEEDS: dict[str, bytes] = {
    "recipe": b"training: {epochs: 3}\nseed: 1\n",
    "study": b"modes: []\nreferences: [backbone]\nseeds: 1\ntargets: [{target: {name: digits}}]\n",
    "oasis": LAYOUTS["oasis"].sheets["OASIS.csv"].encode(),
    "emotion6": LAYOUTS["emotion6"].sheets["ground_truth.txt"].encode(),
    "emoset": LAYOUTS["emoset"].sheets["train.json"].encode(),
    "manifest": LAYOUTS["manifest"].sheets["manifest.csv"].encode(),
    "zip": zipped("a/1.png", "b/2.png"),
    "png": encoded("png"),
    "jpeg": encoded("jpeg"),
    "pack": b'{"format": 1, "set": "x", "kind": "target", "image_size": 8, "images": 4, "labels": [], "splits": true}',
    "metrics": b"epoch,train_loss\n1,2.0\n",
}
PARSERS: dict[str, Callable[[], Callable[[bytes], object]]] = {
    "recipe": lambda: parser_of("recipe.yaml", lambda path: read_recipe(TrainRecipe, path)),
    "study": lambda: parser_of("study.yaml", read_study),
    **{name: functools.partial(label_file, name) for name in ("oasis", "emotion6", "emoset", "manifest")},
    "zip": lambda: parser_of("set.zip", all_files),
    **dict.fromkeys(("png", "jpeg"), lambda: parser_of("x.img", lambda path: decode(File(path.name, path.parent), 8))),
    "pack": pack_description,
    "metrics": lambda: parser_of("metrics.csv", lambda path: Run(path.parent).metrics),
}


def main(name: str, options: list[str]) -> None:
    """Fuzz one parser until the time is over or it fails."""
    parse, corpus = PARSERS[name](), HOME / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(SEEDS[name])

    def one(content: bytes) -> None:
        try:
            parse(content)
        except UserError as error:
            assert str(error).isprintable() and str(HOME) in str(error)

    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={HOME}/", *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    parser, *given = sys.argv[1:]
    if parser == "all":  # a process for each, because atheris exits its process
        done = [subprocess.run([sys.executable, __file__, name, *given], check=False) for name in PARSERS]
        sys.exit(any(process.returncode for process in done))
    main(parser, given)
