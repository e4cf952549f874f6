"""The commands that share a trained model with others: export and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from emoreg.cli.inference import Temperature
from emoreg.cli.parser import Folder, Quiet
from emoreg.cli.report import RunsFolder
from emoreg.runtime.progress import Progress


def export(
    run: Path,
    *,
    to: Folder,
    format: Literal["hub", "onnx", "torch", "timm"],
    temperature: Temperature | None = None,
    study: Folder | None = None,
    runs: RunsFolder | None = None,
    overwrite: bool = False,
    quiet: Quiet = False,
) -> None:
    """Export a trained model: Hugging Face Hub, ONNX, torch.export, timm.

    Also writes a model card (README.md) with the run's numbers. Before the command reports success, it loads the
    exported model and compares it with the run.

    Args:
        run: folder of a finished run
        to: folder to write; must be new or empty
        format: hub: model.safetensors and config.json for RegulatedModel.from_pretrained and the Hugging Face Hub;
            onnx: model.onnx for onnxruntime and others, needs the extra: pip install 'emoreg[export]'; torch:
            model.pt2, a torch.export program that needs only torch; timm: only the emotional encoder, as weights for
            timm
        temperature: divide the regulated logits by T, from 0.01 to 100; calibrated takes the run's own T, from emoreg
            calibrate. Default: as trained
        study: folder of the study whose table and main finding the card shows
        overwrite: replace files in a folder that is not empty

    Examples:
        emoreg export runs/cifar10-resnet20-learn-e-reg-seed0 --to my-model --format hub --study runs/cifar10-pilot
        emoreg export runs/cifar10-resnet20-learn-e-reg-seed0 --to my-model-onnx --format onnx --temperature calibrated
        emoreg export runs/experience-oasis-vit-tiny-seed0 --to my-encoder --format timm
    """
    from emoreg.inference.export.export import export as export_run

    Progress(quiet=quiet).detail(f"exporting {run} as {format}")
    result = export_run(run, to, format, study, overwrite=overwrite, runs=runs, temperature=temperature)
    files = ", ".join(sorted(path.name for path in result.folder.iterdir()))
    print(f"largest difference of the {result.compared}: {result.difference:.1e} (allowed: 1e-04)")
    print(f"done: {result.folder} ({files})")


def demo(run: Path, *, port: int | None = None, host: str = "127.0.0.1", share: bool = False) -> None:
    """Serve a page where people try a classifier on their own images.

    Drop an image on the page to see both responses and the regulated one, set λ by hand, and read what the network
    feels. Needs the extra: pip install 'emoreg[demo]'. Ctrl-C stops it.

    Args:
        run: folder of a finished classifier
        port: default: the first free one from 7860 up
        host: address to listen on; 127.0.0.1 accepts only this machine, 0.0.0.0 its whole network
        share: also serve at a public address for a week, through Gradio's servers

    Examples:
        emoreg demo runs/cifar10-resnet20-learn-e-reg-seed0
        emoreg demo runs/cifar10-resnet20-learn-e-reg-seed0 --port 8000
    """
    from emoreg.inference.demo import serve

    serve(run, host, port, share)
