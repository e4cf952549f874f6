"""Malformed files of people's labels (CIFAR-10N), and parts of sets that are not there."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoreg.data.targets.label_noise import CIFAR10
from hostile.malformed import Content, Malformed
from hostile.set_inputs import RECIPE, png, pretrain, train
from pickles import Touches, zipped

FILE = "CIFAR-10_human.pt"
CLEAN = np.arange(10)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def files() -> Iterator[tuple[str, Content]]:
    good = saved({"clean_label": CLEAN, "worse_label": CLEAN})
    yield "empty", b""
    yield "an image", png()
    yield "cut off", good[: len(good) // 2]
    yield "a pickle without a zip", pickle.dumps({"clean_label": CLEAN})
    yield "code for labels", zipped(pickle.dumps({"clean_label": Touches()}, 2))
    yield "code beside the labels", saved({"clean_label": CLEAN, "worse_label": CLEAN, "more": Touches()})
    yield "a bomb", zipped(b"0" * (17 * 2**20))
    yield "a list", saved([1, 2])
    yield "labels without names", saved(CLEAN)
    yield "no clean labels", saved({"worse_label": CLEAN})
    yield "labels of another set", saved({"clean_label": CLEAN[:5], "worse_label": CLEAN[:5]})
    yield "clean labels in another order", saved({"clean_label": CLEAN[::-1].copy(), "worse_label": CLEAN})
    yield "no labels of this kind", saved({"clean_label": CLEAN})
    yield "labels that were not published", good
    yield "labels that are no numbers", saved({"clean_label": CLEAN.astype(float), "worse_label": CLEAN})
    yield "objects for labels", saved({"clean_label": np.array([{}] * 10), "worse_label": CLEAN})
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
