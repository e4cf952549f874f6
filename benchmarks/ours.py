"""Work of emoreg that benchmarks measure: training steps, batches, decoding, prediction, several runs at once."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from turns import serve

from emoreg.config.augment import AugmentSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings
from emoreg.config.training import Device, TrainingSettings
from emoreg.data.images.augment import normalise, resize
from emoreg.data.images.batches import training_batches
from emoreg.data.images.decode import square, upright
from emoreg.data.images.files import File
from emoreg.data.images.threads import in_threads
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.inference.load import EmotionReadout, LoadedRun
from emoreg.inference.predict import predict
from emoreg.models.backbones import build_backbone
from emoreg.runtime.gpus import shared_gpus
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import heads_of
from emoreg.stages.classification_loss import classification_loss
from emoreg.stages.classifier import build_classifier
from emoreg.stages.pretrain import AffectiveModel
from emoreg.study.calibrate import endless_batches, noise
from emoreg.training.captured_step import make_step
from emoreg.training.fabric import make_fabric
from emoreg.training.progressive_resizing import progressive_size
from emoreg.training.step import Objective, make_state

AUGMENT = AugmentSettings(crop_padding=4, flip=True)
# Each alone on top of crop and flip; together as in DeiT (Touvron et al. 2021); and all of them.
AUGMENTATIONS = {
    "alternate_flip": AugmentSettings(alternate_flip=True),
    "trivial": AugmentSettings(policy="trivial"),
    "rand": AugmentSettings(policy="rand"),
    "jitter": AugmentSettings(jitter=0.4),
    "erase": AugmentSettings(erase=0.25),
    "cutout": AugmentSettings(cutout=0.5),
    "mixup": AugmentSettings(mixup=0.8),
    "cutmix": AugmentSettings(cutmix=1.0),
    "deit": AugmentSettings(policy="rand", erase=0.25, mixup=0.8, cutmix=1.0),
    "everything": AugmentSettings(
        alternate_flip=True, policy="rand", jitter=0.4, erase=0.25, cutout=0.5, mixup=0.8, cutmix=1.0
    ),
}
Work = Callable[[], float]


def make_recipe(
    name: str,
    batch_size: int,
    device: Device,
    arm: str = "Backbone",
    augment: AugmentSettings = AUGMENT,
    **training: Any,
) -> TrainRecipe:
    """Make the recipe of one of the arms "Backbone", "trained", "frozen", "views"."""
    is_regulated, is_frozen = arm != "Backbone", arm in ("frozen", "views")
    return TrainRecipe(
        backbone=BackboneSettings(name, patch_size=4 if "vit" in name else None),
        encoder=EncoderSettings(frozen=is_frozen, views=0 if arm == "views" else None),
        regulation=RegulationSettings(mode="learned" if is_regulated else "none"),
        augment=augment,
        training=TrainingSettings(batch_size=batch_size, device=device, **training),
    )


def training(
    recipe: TrainRecipe, steps: int, threads: int | None = None, clock: Callable[[], float] = time.perf_counter
) -> Work:
    """Return work that trains for some steps, as `emoreg.training.loop.fit` does, and returns images per second.

    With growing images, every round goes through all sizes.
    """
    if threads:
        torch.set_num_threads(threads)
    fabric = make_fabric(recipe.training)
    size = recipe.training.batch_size
    images = noise(32, max(20, steps) * size).to(fabric.device)
    classifier = build_classifier(recipe, num_classes=10)
    constant = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, schedule="constant"))
    objective = Objective(classifier, classification_loss(classifier, images, recipe))
    state = make_state(fabric, objective, constant, size, steps=10**9)
    step = make_step(state)
    state.loss_module.train()
    batches = endless_batches(images, size, recipe.augment)

    def work() -> float:
        losses = torch.zeros(steps, device=fabric.device)
        started = clock()
        for number in range(steps):
            batch = next(batches)
            side = progressive_size(32, recipe.training, recipe.training.epochs * number / steps)
            losses[number] = step(batch._replace(images=resize(batch.images, side)), None)
        losses.mean().item()  # wait for the device
        return steps * size / (clock() - started)

    return work


def data(batch_size: int, steps: int, device: Device, augment: AugmentSettings = AUGMENT) -> Work:
    """Return work that only makes batches, an epoch of `steps`, and returns images per second."""
    images = noise(32, steps * batch_size).to(make_fabric(TrainingSettings(device=device)).device)

    def work() -> float:
        started = time.perf_counter()
        for batch in training_batches(images, batch_size, augment, 0, 0):
            assert len(batch.labels) == batch_size
        batch.labels.sum().item()  # wait for the device
        return steps * batch_size / (time.perf_counter() - started)

    return work


def at_once(recipe: TrainRecipe, steps: int, runs: int, threads: int) -> Work:
    """Return work that runs several trainings at once, each in its own process, and returns their total images/s.

    They share GPUs like the runs of `emoreg study --jobs`, until this process ends.
    """
    context = multiprocessing.get_context("spawn")
    ends = []
    sharing = contextlib.ExitStack()
    atexit.register(sharing.close)
    for gpu in sharing.enter_context(shared_gpus(runs, Progress())):
        end, theirs = context.Pipe()
        os.environ.update(gpu)
        context.Process(target=serve, args=(theirs, training, (recipe, steps, threads)), daemon=True).start()
        theirs.close()  # so that the pipe closes with the process
        ends.append(end)
    for end in ends:
        end.recv()  # wait until it is ready

    def work() -> float:
        started = time.perf_counter()
        for end in ends:
            end.send(True)
        for end in ends:
            end.recv()
        return runs * steps * recipe.training.batch_size / (time.perf_counter() - started)

    return work


def studying(recipe: TrainRecipe, seeds: int, images: int, epochs: int) -> Work:
    """Return work that runs `emoreg study` in a process, from its file to its report, and returns studies per second.

    Each seed trains Backbone and the ensemble, whose step costs as much as that of a regulated network: three branches.

    Args:
        recipe: its backbone, augmentation, batch size and device are used.
        seeds: number of seeds.
        images: number of training images, PNG files of 32x32; the test split has as many as a batch.
        epochs: epochs of each run.
    """
    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name) / "images"
    draw = np.random.default_rng(0)
    for split, count in (("train", images), ("test", recipe.training.batch_size)):
        for number in range(count):
            place = root / split / f"class {number % 10}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png", compress_level=0)
    study = {
        "edition": 2,
        "modes": [],
        "experiences": [],
        "references": ["backbone", "ensemble"],
        "seeds": seeds,
        "classifier": {
            "target": {"name": "folder", "root": str(root), "image_size": 32, "validation": 0},
            "backbone": {"name": recipe.backbone.name, "patch_size": recipe.backbone.patch_size},
            "augment": {"crop_padding": recipe.augment.crop_padding, "flip": recipe.augment.flip},
            "training": {
                "epochs": epochs,
                "batch_size": recipe.training.batch_size,
                "device": recipe.training.device,
                "compile": recipe.training.compile,
                "cuda_graphs": recipe.training.cuda_graphs,
            },
        },
    }
    file = Path(folder.name) / "study.yaml"
    file.write_text(json.dumps(study), encoding="utf-8")  # JSON is valid YAML

    def work() -> float:
        with tempfile.TemporaryDirectory(dir=folder.name) as out:
            started = time.perf_counter()
            command = [sys.executable, "-m", "emoreg", "study", str(file), "--out", str(Path(out) / "study"), "--quiet"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return 1 / (time.perf_counter() - started)

    return work


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """Make JPEG files, about as many bytes as photographs: smooth shapes with some noise."""
    draw = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = np.clip(smooth + draw.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def decoding(decoder: str, width: int, height: int, size: int, count: int) -> Work:
    """Return work that decodes photographs to squares on all cores, and returns images per second.

    Args:
        decoder: "emoreg", "Pillow" or "torchvision" (libjpeg-turbo).
        width: width of the files in pixels.
        height: height of the files in pixels.
        size: side of the square in pixels.
        count: number of files.
    """
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    files = photographs(min(count, 64), width, height)
    nowhere = File("made here", Path())

    def emoreg(content: bytes) -> None:
        square(upright(nowhere, content, at_least=size), size)

    def pillow(content: bytes) -> None:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)

    def torch_(content: bytes) -> None:
        image = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
        functional.center_crop(functional.resize(image, [size], antialias=True), [size, size])

    one = {"emoreg": emoreg, "Pillow": pillow, "torchvision": torch_}[decoder]
    if decoder == "torchvision":
        torch.set_num_threads(1)  # parallel over files

    def work() -> float:
        started = time.perf_counter()
        for _ in in_threads(lambda rows: [one(files[row % len(files)]) for row in rows], range(count), 16):
            pass
        return count / (time.perf_counter() - started)

    return work


def predicting(recipe: TrainRecipe, count: int) -> Work:
    """Return work that predicts `count` JPEG files of 32x32 from a folder, and returns images per second.

    A regulated classifier also reads out emotion with a stage-1 encoder, so an image passes through three networks.
    """
    folder = tempfile.TemporaryDirectory()
    for number, content in enumerate(photographs(count, 32, 32)):
        (Path(folder.name) / f"{number}.jpg").write_bytes(content)
    readout = None
    if recipe.regulation.mode != "none":
        heads = heads_of([("made here", EmotionSpace("dimensions", ("valence", "arousal")))])
        readout = EmotionReadout(
            AffectiveModel(build_backbone(recipe.backbone, 32), 2).eval(), heads, 32, Path(folder.name)
        )
    classes = tuple(map(str, range(10)))
    loaded = LoadedRun(Path(folder.name), build_classifier(recipe, 10).eval(), recipe, classes, 32, readout)

    def work() -> float:
        started = time.perf_counter()
        assert sum(1 for _ in predict(loaded, folder.name, device=recipe.training.device)) == count
        return count / (time.perf_counter() - started)

    return work


def forward(recipe: TrainRecipe, count: int) -> Work:
    """Return work that only runs the classifier on ready batches, of the size that `predict` uses."""
    fabric = make_fabric(recipe.training)
    classifier = build_classifier(recipe, 10).eval().to(fabric.device)
    size = 64 if fabric.device.type == "cpu" else 256
    passes = max(count // size, 1)
    pixels = noise(32, size).to(fabric.device).pixels
    assert pixels is not None  # they are in memory

    @torch.inference_mode()
    def work() -> float:
        started = time.perf_counter()
        for _ in range(passes):
            with fabric.autocast():
                logits = classifier(normalise(pixels))
        logits.sum().item()  # wait for the device
        return passes * size / (time.perf_counter() - started)

    return work
