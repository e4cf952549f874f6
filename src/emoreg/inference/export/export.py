"""Exports a finished run: files for the Hugging Face Hub, ONNX, a torch.export program, or weights for timm."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from emoreg.config.normalisation import MEAN, STD
from emoreg.config.schema import Task
from emoreg.config.setting_types import path_of, typed_value
from emoreg.errors import UserError
from emoreg.inference.export.graphs import (
    METADATA,
    OPSET,
    ExportableClassifier,
    load_onnx,
    max_difference,
    save_onnx,
    save_program,
)
from emoreg.inference.export.model_card import CONFIG, StudyFacts, classifier_card, study_facts, write_description
from emoreg.inference.export.preparation import preparation
from emoreg.inference.export.timm_weights import write_encoder
from emoreg.inference.load import LoadedRun, load_run
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import RECIPE, WEIGHTS, Run, open_run
from emoreg.runtime.safe_io import new_folder
from emoreg.stages.given_model import has_given_model

SHOWN: Mapping[Task, str] = {  # of a model of the Hub, in its card
    "classification": "model.classes[response.logits[0].argmax()]",
    "multilabel": "dict(zip(model.classes, response.logits[0].sigmoid().tolist()))",
    "regression": "dict(zip(model.classes, response.logits[0].tolist()))",
}
UNFINISHED = ".export-"  # the beginning of the name of a folder whose files are moved when all are written

Format = Literal["hub", "onnx", "torch", "timm"]


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        folder: the folder that was written.
        difference: largest absolute difference between the outputs of the run and those of the export loaded again.
        compared: which outputs were compared, in words.
    """

    folder: Path
    difference: float
    compared: str


def export(
    run: Run | Path | str,
    to: Path | str,
    format: Format,
    study: Path | str | None = None,
    model: RegulatedClassifier | None = None,
    overwrite: bool = False,
    runs: Path | str | None = None,
) -> Exported:
    """Write a run in another format with a model card (README.md), load it again, and compare its outputs.

    Args:
        run: a finished run of stage 2 or its folder; for "timm" also one of stage 1.
        to: output folder; created if it does not exist.
        format: "hub": for `RegulatedModel.from_pretrained` and the Hugging Face Hub. "onnx": model.onnx. "torch": a
            torch.export program, model.pt2. "timm": the emotional encoder alone, as weights for timm.
        study: folder of the study whose table and first finding the card shows; not for "timm".
        model: for a run that trained your own model: one with the same architecture; for "onnx" and "torch".
        overwrite: allow a folder that is not empty; files of the same names are replaced.
        runs: folder of the study's run folders; None for its own.

    Raises:
        UserError: no finished run; nothing to export in this format; `to` is not empty; a library is not installed;
            the outputs differ by more than 1e-4. In each case nothing is written.
    """
    format, folder, to = typed_value(Format, format, "format"), open_run(run).folder, path_of(to, "to")
    if format == "timm":
        if study is not None:
            raise UserError("--study belongs to the card of a classifier; an encoder alone (timm) has none")
        with _output_folder(to, overwrite) as temporary:
            return Exported(to, *write_encoder(folder, temporary))
    if Run(folder).stage == 1:
        raise UserError(f"{folder} is a run of stage 1, an emotional encoder alone: export it as timm")
    if format == "hub" and (model is not None or has_given_model(Run(folder))):
        raise UserError(
            f"{folder} trained a model of your own, which config.json cannot describe: export onnx or torch"
        )
    loaded = load_run(folder, model=model)
    facts = None if study is None else study_facts(study, folder, runs)
    write = {"hub": _write_hub, "onnx": _write_onnx, "torch": _write_torch}[format]
    with _output_folder(to, overwrite) as temporary:
        return Exported(to, *write(loaded, temporary, facts))


@contextlib.contextmanager
def _output_folder(to: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder whose files are moved to `to` if the block succeeds."""
    if (to / RECIPE).exists():
        raise UserError(f"{to} is a run; choose another folder")
    try:
        for leftover in to.glob(f"{UNFINISHED}*"):  # of an export that was killed
            shutil.rmtree(leftover)
        if to.exists() and not overwrite and (not to.is_dir() or any(to.iterdir())):
            raise UserError(f"{to} is not empty; choose another folder, or let its files be replaced (overwrite)")
        with new_folder(to), tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=to) as temporary:
            yield Path(temporary)
            written = sorted(Path(temporary).iterdir())
            mode = _mode_of_new_files(Path(temporary))
            for path in written:
                path.chmod(mode)
                path.replace(to / path.name)
    except OSError as error:
        raise UserError(f"cannot write {to}: {error.strerror or error}") from None


def _mode_of_new_files(folder: Path) -> int:
    """What the umask makes of 0666: safetensors' own files are for their owner alone."""
    probe = folder / ".mode"
    probe.touch()
    return stat.S_IMODE(probe.stat().st_mode)


def _write_hub(loaded: LoadedRun, folder: Path, study: StudyFacts | None) -> tuple[float, str]:
    from emoreg.inference.export.hub import RegulatedModel

    model = RegulatedModel.of(loaded)
    files = {WEIGHTS: "weights", CONFIG: "architecture, classes, input size, normalisation, kind of λ"}
    use = (
        "from emoreg import RegulatedModel\n\n"
        'model = RegulatedModel.from_pretrained(".")  # this folder, or "owner/name" on the Hugging Face Hub\n'
        'response = model.respond(model.prepare(["photo.jpg"]))  # .logits, .non_emotional, .emotional, .lam\n'
        f"print({SHOWN[loaded.model.task]}, response.lam)"
    )
    model.card = classifier_card(loaded, use, files, study)
    model.save_pretrained(folder)
    with contextlib.redirect_stdout(None):  # the mixin prints where it loads from
        again = RegulatedModel.from_pretrained(str(folder))
    difference = max_difference(ExportableClassifier(loaded.model), ExportableClassifier(again), loaded.image_size)
    return difference, "logits of the model loaded again"


def _write_onnx(loaded: LoadedRun, folder: Path, study: StudyFacts | None) -> tuple[float, str]:
    network = ExportableClassifier(loaded.model).eval()
    metadata = _metadata(loaded, network) | {"opset": OPSET}
    save_onnx(network, loaded.image_size, folder / "model.onnx", metadata)
    difference = max_difference(network, load_onnx(folder / "model.onnx"), loaded.image_size)
    code = (
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        f"{', '.join(network.names)} = session.run(None, {{'images': pixels}})"
    )
    files = {"model.onnx": f"network, ONNX opset {OPSET}, any batch size; its metadata include {CONFIG}"}
    _describe(loaded, folder, "onnxruntime", code, files, metadata, study)
    return difference, "answers of onnxruntime"


def _write_torch(loaded: LoadedRun, folder: Path, study: StudyFacts | None) -> tuple[float, str]:
    network = ExportableClassifier(loaded.model).eval()
    metadata = _metadata(loaded, network)
    save_program(network, loaded.image_size, folder / "model.pt2", metadata)
    difference = max_difference(network, torch.export.load(folder / "model.pt2").module(), loaded.image_size)
    code = (
        'network = torch.export.load("model.pt2").module()\n'
        f"{', '.join(network.names)} = network(torch.from_numpy(pixels))"
    )
    files = {"model.pt2": f"network, a torch.export program, any batch size; it contains {CONFIG} as {METADATA}"}
    _describe(loaded, folder, "torch", code, files, metadata, study)
    return difference, "answers of the program loaded again"


def _metadata(loaded: LoadedRun, network: ExportableClassifier) -> dict[str, Any]:
    """What a user of the file needs to know."""
    regulation = loaded.recipe.regulation
    return {
        "classes": list(loaded.classes),
        "image_size": loaded.image_size,
        "mean": list(MEAN),
        "std": list(STD),
        "input": "images: float32 (batch, 3, image_size, image_size), RGB in [0, 1] minus mean, divided by std",
        "outputs": list(network.names),
        "task": loaded.model.task,
        "regulation": {"mode": regulation.mode, "granularity": regulation.granularity, "mix": regulation.mix},
    }


def _describe(
    loaded: LoadedRun,
    folder: Path,
    library: str,
    code: str,
    files: dict[str, str],
    metadata: dict[str, Any],
    study: StudyFacts | None,
) -> None:
    """Write config.json and the card of a format that is used without emoreg."""
    use = preparation(loaded.image_size, f"import {library}", loaded.fit) + code
    files = files | {CONFIG: "classes, input size, normalisation, names of the outputs"}
    write_description(folder, metadata, classifier_card(loaded, use, files, study))
