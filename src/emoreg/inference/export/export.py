"""Export a finished run: files for the Hugging Face Hub, ONNX, a torch.export program, or weights for timm."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

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
from emoreg.inference.export.model_card import (
    CARD,
    CONFIG,
    StudyFacts,
    classifier_card,
    describe_temperature,
    study_facts,
    write_description,
)
from emoreg.inference.export.preparation import preparation
from emoreg.inference.export.timm_weights import write_encoder
from emoreg.inference.load import LoadedRun, load_run
from emoreg.inference.temperature import Temperature, temperature_of
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import RECIPE, WEIGHTS, Run, open_run
from emoreg.runtime.safe_io import new_folder
from emoreg.stages.given_model import has_given_model

SHOWN: Mapping[Task, str] = {  # what the code on a Hub card prints of a response
    "classification": "model.classes[response.logits[0].argmax()]",
    "multilabel": "dict(zip(model.classes, response.logits[0].sigmoid().tolist()))",
    "regression": "dict(zip(model.classes, response.logits[0].tolist()))",
}
UNFINISHED = ".emoreg-export-"  # prefix of the temporary folder that files are moved from when all are written

Format = Literal["hub", "onnx", "torch", "timm"]


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        folder: the folder that was written.
        difference: largest absolute difference between the outputs of the run and those of the reloaded export.
        compared: which outputs of the export were compared, in words.
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
    temperature: float | str | None = None,
) -> Exported:
    """Write a run in another format with a model card (README.md), reload it, and compare the outputs.

    Args:
        run: a finished run of stage 2 or its folder; for "timm" also one of stage 1.
        to: output folder; created if it does not exist.
        format: "hub": for `RegulatedModel.from_pretrained` and the Hugging Face Hub. "onnx": model.onnx. "torch": a
            torch.export program, model.pt2. "timm": the emotional encoder alone, as weights for timm.
        study: folder of the study whose table and first finding the card shows; not for "timm".
        model: for a run that trained your own model: one with the same architecture; for "onnx" and "torch".
        overwrite: allow a folder that is not empty; files of the same names are replaced.
        runs: folder of the study's runs; None for its own.
        temperature: T that the regulated logits are divided by in the exported network, as for `predict`; not for
            "timm".

    Raises:
        UserError: the run is not finished; the format cannot hold it; `to` is not empty; a library is not installed;
            the run has no such temperature; the outputs differ by more than 1e-4. In each case nothing is written.
    """
    format, folder, to = typed_value(Format, format, "format"), open_run(run).folder, path_of(to, "to")
    if format == "timm":
        if study is not None:
            raise UserError("--study is for the card of a classifier; leave it out when exporting an encoder (timm)")
        if temperature is not None:
            raise UserError("--temperature is for logits, which an encoder (timm) does not have; leave it out")
        with _output_folder(to, overwrite) as temporary:
            return Exported(to, *write_encoder(folder, temporary))
    if Run(folder).stage == 1:
        raise UserError(f"{folder} is a run of stage 1, an emotional encoder alone: export it as timm")
    if format == "hub" and (model is not None or has_given_model(Run(folder))):
        raise UserError(
            f"{folder} trained a model of your own, which config.json cannot describe: export onnx or torch"
        )
    loaded = load_run(folder, model=model)
    scaling = temperature_of(loaded, temperature)
    facts = None if study is None else study_facts(study, folder, runs)
    with _output_folder(to, overwrite) as temporary:
        if format == "hub":
            return Exported(to, *_write_hub(loaded, temporary, facts, scaling))
        return Exported(to, *_write_graph(loaded, temporary, facts, scaling, format))


@contextlib.contextmanager
def _output_folder(to: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder whose files are moved to `to` if the block succeeds."""
    if (to / RECIPE).exists():
        raise UserError(f"{to} is a run; choose another folder")
    try:
        for leftover in to.glob(f"{UNFINISHED}*"):  # from an export that was killed
            shutil.rmtree(leftover)
        if to.exists() and not overwrite and (not to.is_dir() or any(to.iterdir())):
            raise UserError(f"{to} is not empty; choose another folder, or let its files be replaced (overwrite)")
        with new_folder(to), tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=to) as temporary:
            yield Path(temporary)
            # The card has the default permissions; files that safetensors writes are readable by their owner only.
            mode = stat.S_IMODE((Path(temporary) / CARD).stat().st_mode)
            for path in sorted(Path(temporary).iterdir()):
                path.chmod(mode)
                path.replace(to / path.name)
    except OSError as error:
        raise UserError(f"cannot write {to}: {error.strerror or error}") from None


def _write_hub(
    loaded: LoadedRun, folder: Path, study: StudyFacts | None, scaling: Temperature | None
) -> tuple[float, str]:
    from emoreg.inference.export.hub import RegulatedModel

    network = _exportable(loaded, scaling)
    model = RegulatedModel.of(loaded, network.temperature)
    files = {WEIGHTS: "weights", CONFIG: "architecture, classes, input size, normalisation, kind of λ"}
    use = (
        "from emoreg import RegulatedModel\n\n"
        'model = RegulatedModel.from_pretrained(".")  # this folder, or "owner/name" on the Hugging Face Hub\n'
        'response = model.respond(model.prepare(["photo.jpg"]))  # .logits, .non_emotional, .emotional, .lam\n'
        f"print({SHOWN[loaded.model.task]}, response.lam)"
    )
    model.card = classifier_card(loaded, use, files, study, scaling)
    model.save_pretrained(folder)
    with contextlib.redirect_stdout(None):  # the mixin prints where it loads from
        again = RegulatedModel.from_pretrained(str(folder))
    difference = max_difference(network, ExportableClassifier(again), loaded.image_size)
    return difference, "logits of the reloaded model"


def _exportable(loaded: LoadedRun, scaling: Temperature | None) -> ExportableClassifier:
    return ExportableClassifier(loaded.model, None if scaling is None else scaling.value)


def _write_graph(
    loaded: LoadedRun,
    folder: Path,
    study: StudyFacts | None,
    scaling: Temperature | None,
    format: Literal["onnx", "torch"],
) -> tuple[float, str]:
    """Write a network that is used without emoreg, with config.json and its card."""
    network, size = _exportable(loaded, scaling).eval(), loaded.image_size
    metadata, names = _metadata(loaded, network), ", ".join(network.names)
    if scaling is not None:
        metadata |= {"temperature": scaling.value, "calibration": describe_temperature(scaling)}
    again: Callable[[Tensor], Sequence[Tensor]]
    if format == "onnx":
        path, library, compared = folder / "model.onnx", "onnxruntime", "outputs of onnxruntime"
        metadata["opset"] = OPSET
        save_onnx(network, size, path, metadata)
        again = load_onnx(path)
        code = (
            'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
            f"{names} = session.run(None, {{'images': pixels}})"
        )
        content = f"network, ONNX opset {OPSET}, any batch size; its metadata includes {CONFIG}"
    else:
        path, library, compared = folder / "model.pt2", "torch", "outputs of the reloaded program"
        save_program(network, size, path, metadata)
        again = torch.export.load(path).module()
        code = f'network = torch.export.load("model.pt2").module()\n{names} = network(torch.from_numpy(pixels))'
        content = f"network, a torch.export program, any batch size; it contains {CONFIG} as {METADATA}"
    difference = max_difference(network, again, size)
    use = preparation(size, f"import {library}", loaded.fit) + code
    files = {path.name: content, CONFIG: "classes, input size and fit, normalisation, names of the outputs"}
    write_description(folder, metadata, classifier_card(loaded, use, files, study, scaling))
    return difference, compared


def _metadata(loaded: LoadedRun, network: ExportableClassifier) -> dict[str, Any]:
    """Collect what a user of the file needs to know."""
    regulation = loaded.recipe.regulation
    return {
        "classes": list(loaded.classes),
        "image_size": loaded.image_size,
        "fit": loaded.fit,
        "mean": list(MEAN),
        "std": list(STD),
        "input": "images: float32 (batch, 3, image_size, image_size), RGB in [0, 1] minus mean, divided by std",
        "outputs": list(network.names),
        "task": loaded.model.task,
        "regulation": {"mode": regulation.mode, "granularity": regulation.granularity, "mix": regulation.mix},
    }
