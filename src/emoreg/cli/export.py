"""The commands that hand a trained classifier on: export it, show it to people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emoreg.cli.parser import command_parser
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

EXPORT_EXAMPLES = """\
formats:
  hub     model.safetensors and config.json: RegulatedModel.from_pretrained, the Hugging Face Hub
  onnx    model.onnx, for onnxruntime and others; needs the extra: pip install 'emoreg[export]'
  torch   model.pt2, a torch.export program: needs torch alone
  timm    the emotional encoder alone, as weights for timm

examples:
  emoreg export runs/cifar10-resnet20-learn-e-reg-seed0 --to my-model --format hub --study runs/cifar10-pilot
  emoreg export runs/cifar10-resnet20-learn-e-reg-seed0 --to my-model-onnx --format onnx
  emoreg export runs/experience-oasis-vit-tiny-seed0 --to my-encoder --format timm
"""
DEMO_EXAMPLES = """\
examples:
  emoreg demo runs/cifar10-resnet20-learn-e-reg-seed0
  emoreg demo runs/cifar10-resnet20-learn-e-reg-seed0 --port 8000
"""


def export(arguments: Sequence[str]) -> None:
    """The command `emoreg export`."""
    parser = command_parser(
        "emoreg export",
        "Write a finished run so that others can use it, with a card (README.md) that has the run's numbers. What was\n"
        "written is loaded again and compared with the run before it is called done.",
        EXPORT_EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="folder to write; new or empty")
    parser.add_argument("--format", required=True, choices=["hub", "onnx", "torch", "timm"], help="see below")
    parser.add_argument(
        "--study", metavar="STUDY", type=Path, help="folder of the study whose table and first finding the card tells"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files in a folder that is not empty")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)

    from emoreg.inference.export.export import export as export_run

    progress = Progress(quiet=options.quiet)
    progress.detail(f"exporting {options.run} as {options.format}")
    done = export_run(options.run, options.to, options.format, options.study, overwrite=options.overwrite)
    files = ", ".join(sorted(path.name for path in done.folder.iterdir()))
    print(f"largest difference of the {done.compared}: {done.difference:.1e} (allowed: 1e-04)")
    print(f"done: {done.folder} ({files})")


def demo(arguments: Sequence[str]) -> None:
    """The command `emoreg demo`."""
    parser = command_parser(
        "emoreg demo",
        "A page on this machine: drop an image, see both responses and the regulated one, move λ by hand, read what\n"
        "the network feels. Needs the extra: pip install 'emoreg[demo]'. Ctrl-C ends it.",
        DEMO_EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished classifier")
    parser.add_argument("--port", type=int, help="(the first free one from 7860 on)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="(%(default)s: this machine alone; 0.0.0.0: everyone in its network)"
    )
    parser.add_argument(
        "--share", action="store_true", help="also at a public address for a week, through Gradio's servers"
    )
    options = parser.parse_args(arguments)
    if options.port is not None and not 0 < options.port < 65536:
        raise UserError(f"--port is {options.port}; it must lie in 1 to 65535")

    from emoreg.inference.demo import serve

    serve(options.run, options.host, options.port, options.share)
