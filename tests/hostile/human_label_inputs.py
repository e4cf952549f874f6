"""Malformed files of people's labels (CIFAR-10N), and parts of sets without images."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emoreg.data.targets.label_noise import CIFAR10
from hostile.malformed import Content, Malformed
from hostile.set_inputs import RECIPE, png, pretrain, train
from pickles import Touches, torch_saved, zipped

FILE = "CIFAR-10_human.pt"
CLEAN = np.arange(10)


def files() -> Iterator[tuple[str, Content]]:
    good = torch_saved({"clean_label": CLEAN, "worse_label": CLEAN})
    yield "empty", b""
    yield "an image", png()
    yield "cut off", good[: len(good) // 2]
    yield "a pickle without a zip", pickle.dumps({"clean_label": CLEAN})
    yield "code instead of labels", zipped(pickle.dumps({"clean_label": Touches()}, 2))
    yield "code beside the labels", torch_saved({"clean_label": CLEAN, "worse_label": CLEAN, "more": Touches()})
    yield "a bomb", zipped(b"0" * (17 * 2**20))
    yield "a list", torch_saved([1, 2])
    yield "labels without names", torch_saved(CLEAN)
    yield "no clean labels", torch_saved({"worse_label": CLEAN})
    yield "labels of another set", torch_saved({"clean_label": CLEAN[:5], "worse_label": CLEAN[:5]})
    yield "clean labels in another order", torch_saved({"clean_label": CLEAN[::-1].copy(), "worse_label": CLEAN})
    yield "no labels of this kind", torch_saved({"clean_label": CLEAN})
    yield "labels that differ from the published ones", good
    yield "labels that are not integers", torch_saved({"clean_label": CLEAN.astype(float), "worse_label": CLEAN})
    yield "objects as labels", torch_saved({"clean_label": np.array([{}] * 10), "worse_label": CLEAN})
    yield "a folder", Path.mkdir
    yield "a pipe that nobody writes to", os.mkfifo
    yield "an endless file", lambda path: path.symlink_to("/dev/zero")


def human_label_inputs() -> Iterator[Malformed]:
    images: dict[str, Content] = {
        f"cifar/{split}/{name}/{number}.png": png(seed=number)
        for split, number in (("train", 0), ("test", 1))
        for name in CIFAR10
    }
    command = (*train("cifar"), "--target.name", "cifar10", "--target.label_noise", "worse", "--target.validation", "0")
    for what, content in files():
        yield Malformed("people's labels", what, RECIPE | images | {FILE: content}, command, FILE)
    yield Malformed("people's labels", "no file", RECIPE | images, command, FILE)
    tail = (*train("cifar"), "--target.imbalance", "1e300")
    yield Malformed("a part of a set", "a tail without images", RECIPE | images, tail, "target.imbalance")
    pleasant = (*pretrain("digits", "cifar"), "--stimuli.valence", "pleasant")
    yield Malformed("a part of a set", "classes that evoke nothing", RECIPE, pleasant, "stimuli.valence")
