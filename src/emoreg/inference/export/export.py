"""A finished run as others can use it without emoreg: the Hub's files, ONNX, a torch.export program, timm weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from emoreg.data.images.augment import MEAN, STD
from emoreg.errors import UserError
from emoreg.inference.export.graphs import METADATA, OPSET, Responses, compare, onnx_answers, save_onnx, save_program
from emoreg.inference.export.model_card import CONFIG, StudyFacts, classifier_card, study_facts, write_description
from emoreg.inference.export.timm_weights import write_encoder
from emoreg.inference.load import LoadedRun, load_run
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import RECIPE, WEIGHTS, Run

Format = Literal["hub", "onnx", "torch", "timm"]
# How images become pixels without emoreg, for the cards of formats that know nothing of it.
PIXELS = """\
image = ImageOps.fit(Image.open("photo.jpg").convert("RGB"), ({size}, {size}), Image.Resampling.BICUBIC)
pixels = ((np.asarray(image) / 255 - {mean}) / {std}).astype(np.float32)
"""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: that holds it.
        difference: the largest between the answers of what was written, loaded again, and those of the run.
        compared: which answers those are, in words.
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
) -> Exported:
    """Write a run for others, load it again, and compare its answers. The folder gets a card, README.md.

    Args:
        run: a finished classifier or its folder; for "timm" also of an emotional encoder.
        to: the folder; made if it is not there.
        format: "hub": for `RegulatedModel.from_pretrained` and the Hugging Face Hub. "onnx": model.onnx. "torch": a
            torch.export program, model.pt2. "timm": the emotional encoder alone, as timm's weights.
        study: folder of the study whose table and first finding go into the card; not for "timm".
        model: for a run that trained your own model, one built alike; for "onnx" and "torch".
        overwrite: whether `to` may hold files, of which those that are written are replaced.

    Raises:
        UserError: no finished run; nothing there to export; `to` is not empty; a library that is not installed; answers
            that differ by more than 1e-4, in which case nothing is written.
    """
    folder, to = run.folder if isinstance(run, Run) else Path(run), Path(to)
    if format == "timm":
        if study is not None:
            raise UserError("--study belongs to the card of a classifier; an encoder alone (timm) has none")
        with _folder_for(to, overwrite) as made:
            return Exported(to, *write_encoder(folder, made))
    if Run(folder).stage == 1:
        raise UserError(f"{folder} is a run of stage 1, an emotional encoder alone: export it as timm")
    loaded = load_run(folder, model=model)
    is_own = model is not None or (Run(folder).environment or [{}])[-1].get("model") == "given by the caller"
    if format == "hub" and is_own:
        raise UserError(
            f"{folder} trained a model of your own, which config.json cannot describe: export onnx or torch"
        )
    facts = None if study is None else study_facts(study, folder)
    with _folder_for(to, overwrite) as made:
        writers = {"hub": _write_hub, "onnx": _write_onnx, "torch": _write_torch}
        return Exported(to, *writers[format](loaded, made, facts))


@contextlib.contextmanager
def _folder_for(to: Path, overwrite: bool) -> Iterator[Path]:
    """An empty folder whose files end in `to` if nothing goes wrong."""
    if (to / RECIPE).exists():
        raise UserError(f"{to} is a run; choose another folder with --to")
    try:
        if to.exists() and not overwrite and (not to.is_dir() or any(to.iterdir())):
            raise UserError(f"{to} is not empty; choose another folder with --to, or give --overwrite")
        is_new = not to.exists()
        to.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".export-", dir=to) as made:
                yield Path(made)
                for path in sorted(Path(made).iterdir()):
                    path.replace(to / path.name)
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):
                    to.rmdir()
            raise
    except OSError as error:
        raise UserError(f"cannot write {to}: {error.strerror or error}") from None


def _write_hub(loaded: LoadedRun, made: Path, study: StudyFacts | None) -> tuple[float, str]:
    from emoreg.inference.export.hub import RegulatedModel

    model = RegulatedModel.of(loaded)
    files = {WEIGHTS: "the weights", CONFIG: "architecture, classes, input size, normalisation, how λ is had"}
    use = (
        "from emoreg.inference.export.hub import RegulatedModel\n\n"
        'model = RegulatedModel.from_pretrained(".")  # this folder, or "owner/name" on the Hugging Face Hub\n'
        'response = model.respond(model.prepare(["photo.jpg"]))  # .logits, .non_emotional, .emotional, .lam\n'
        "print(model.classes[response.logits[0].argmax()], response.lam)"
    )
    model.card = classifier_card(loaded, use, files, study)
    model.save_pretrained(made)
    with contextlib.redirect_stdout(None):  # the mixin says where it loads from
        again = RegulatedModel.from_pretrained(str(made))
    return compare(Responses(loaded.model), Responses(again), loaded.image_size), "logits of the model loaded again"


def _write_onnx(loaded: LoadedRun, made: Path, study: StudyFacts | None) -> tuple[float, str]:
    network = Responses(loaded.model).eval()
    metadata = _metadata(loaded, network) | {"opset": OPSET}
    save_onnx(network, loaded.image_size, made / "model.onnx", metadata)
    difference = compare(network, onnx_answers(made / "model.onnx"), loaded.image_size)
    use = (
        "import numpy as np, onnxruntime\nfrom PIL import Image, ImageOps\n\n"
        f"{PIXELS.format(size=loaded.image_size, mean=MEAN, std=STD)}"
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        f"{', '.join(network.names)} = session.run(None, {{'images': pixels.transpose(2, 0, 1)[None]}})"
    )
    files = {"model.onnx": f"the network, ONNX opset {OPSET}, any batch size; {CONFIG} is in its metadata too"}
    _describe(loaded, made, use, files, metadata, study)
    return difference, "answers of onnxruntime"


def _write_torch(loaded: LoadedRun, made: Path, study: StudyFacts | None) -> tuple[float, str]:
    network = Responses(loaded.model).eval()
    metadata = _metadata(loaded, network)
    save_program(network, loaded.image_size, made / "model.pt2", metadata)
    difference = compare(network, torch.export.load(made / "model.pt2").module(), loaded.image_size)
    use = (
        "import numpy as np, torch\nfrom PIL import Image, ImageOps\n\n"
        f"{PIXELS.format(size=loaded.image_size, mean=MEAN, std=STD)}"
        'network = torch.export.load("model.pt2").module()\n'
        f"{', '.join(network.names)} = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])"
    )
    files = {"model.pt2": f"the network as a torch.export program, any batch size; {CONFIG} is in it too ({METADATA})"}
    _describe(loaded, made, use, files, metadata, study)
    return difference, "answers of the program loaded again"


def _metadata(loaded: LoadedRun, network: Responses) -> dict[str, Any]:
    """What a user of the file alone must know."""
    regulation = loaded.recipe.regulation
    return {
        "classes": list(loaded.classes),
        "image_size": loaded.image_size,
        "mean": list(MEAN),
        "std": list(STD),
        "input": "images: float32 (batch, 3, image_size, image_size), RGB in [0, 1] minus mean, divided by std",
        "outputs": list(network.names),
        "regulation": {"mode": regulation.mode, "granularity": regulation.granularity, "mix": regulation.mix},
    }


def _describe(
    loaded: LoadedRun,
    made: Path,
    use: str,
    files: dict[str, str],
    metadata: dict[str, Any],
    study: StudyFacts | None,
) -> None:
    files = files | {CONFIG: "classes, input size, normalisation, names of the outputs"}
    write_description(made, metadata, classifier_card(loaded, use, files, study))
