"""A page where people try a classifier: drop an image, see every response, move λ by hand, read what it feels."""

from __future__ import annotations

import html
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emoreg.data.images.batches import normalise
from emoreg.data.images.decode import decode
from emoreg.data.images.files import File
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.errors import UserError
from emoreg.inference.load import Loaded, load_run
from emoreg.inference.predict import at_lambda
from emoreg.models.regulation import Response
from emoreg.runtime.signals import Stopped

TOP = 5  # classes of each response
NAMED = 12  # classes that the page names; more are counted
MAX_UPLOAD = "64mb"
ENDS = "0: the non-emotional response alone, 1: the emotional one."  # of λ


@dataclass(frozen=True)
class Asked:
    """What the classifier answers to one image, on the CPU.

    Args:
        response: logits and λ of a batch of one.
        felt: (ΣE,), as `ReadOut.feel` gives it; None without a read-out.
    """

    response: Response
    felt: Tensor | None


@torch.no_grad()
def ask(loaded: Loaded, path: Path | str) -> Asked:
    """The answer to an image, decoded as for training. UserError for what is no image."""

    def seen(image_size: int) -> Tensor:
        pixels = torch.from_numpy(decode(File(Path(path).name, Path(path).parent), image_size).copy())
        return normalise(pixels.permute(2, 0, 1)[None])

    read_out = loaded.read_out
    felt = None if read_out is None else read_out.feel(seen(read_out.image_size))[0]
    return Asked(loaded.model.respond(seen(loaded.image_size)), felt)


def probabilities(logits: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Of each class, from logits (1, K)."""
    return dict(zip(classes, logits.softmax(dim=1)[0].tolist(), strict=True))


def trained_lambda(response: Response) -> tuple[float, str]:
    """λ of an image as trained, of two digits, the mean where each class has its own; and the same in words."""
    assert response.lam is not None
    values = response.lam.flatten().tolist()
    mean = round(sum(values) / len(values), 2)
    if len(values) == 1:
        return mean, f"{ENDS} As trained: {mean:.2f}."
    return mean, (
        f"{ENDS} As trained each class has its own, {min(values):.2f} to {max(values):.2f}; moved by hand it is one "
        "for all."
    )


def build_page(loaded: Loaded, title: str) -> Any:
    """The page as `gradio.Blocks`, not yet served.

    Args:
        loaded: the run.
        title: its name.

    Raises:
        UserError: gradio is not installed.
    """
    gr = _gradio()
    regulated = loaded.model.encoder is not None
    mix = loaded.model.mix

    with gr.Blocks(title=f"{title} · emoreg", analytics_enabled=False) as page:
        asked = gr.State(None)
        gr.Markdown(f"# {html.escape(title)}\n\n{_introduction(loaded)}")
        gr.HTML(f"<p>{html.escape(known_classes(loaded.classes))}</p>", elem_id="classes")  # names may be markup
        with gr.Row():
            with gr.Column(min_width=300):
                image = gr.Image(
                    label="Image",
                    sources=["upload", "clipboard"],
                    type="filepath",
                    height=300,
                    buttons=[],
                    elem_id="image",
                )
                # Gradio would open it first, and tell nobody on the page why it cannot.
                image.preprocess = lambda payload: None if payload is None else payload.path
                slider = gr.Slider(
                    0,
                    1,
                    0.5,
                    step=0.01,
                    label="λ",
                    info=ENDS,
                    interactive=False,
                    visible=regulated,
                    buttons=[],
                    elem_id="lambda",
                )
                reset = gr.Button("As trained", interactive=False, visible=regulated, elem_id="as-trained")
            with gr.Column(min_width=300):
                answers = [
                    gr.Label(label=name, num_top_classes=TOP, show_heading=number == 0, elem_id=key)
                    for number, (key, name) in enumerate(_responses(regulated))
                ]
            with gr.Column(min_width=300):
                felt = _felt_components(gr, loaded)

        def respond(path: str | None) -> list[Any]:
            if path is None:
                empty = [gr.update(value=None) for _ in (*answers, *felt)]
                return [None, gr.update(info=ENDS, interactive=False), gr.update(interactive=False), *empty]
            try:
                found = ask(loaded, path)
            except UserError as error:
                name = Path(path).name  # not where the server keeps it
                raise gr.Error(f"{name}: {str(error).rpartition(': ')[2]}", print_exception=False) from None
            move, press = gr.update(), gr.update()
            if regulated:
                value, told = trained_lambda(found.response)
                move, press = gr.update(value=value, info=told, interactive=True), gr.update(interactive=True)
            return [found, move, press, *_shown(found.response, loaded.classes), *_felt_values(found, loaded)]

        def regulate(found: Asked | None, lam: float) -> dict[str, float] | None:
            if found is None:
                return None
            return probabilities(at_lambda(found.response, lam, mix).logits, loaded.classes)

        def as_trained(found: Asked | None) -> list[Any]:
            if found is None:
                return [gr.update(), None]
            return [trained_lambda(found.response)[0], probabilities(found.response.logits, loaded.classes)]

        options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        image.change(respond, image, [asked, slider, reset, *answers, *felt], **options)
        # Both responses are there already: moving λ asks no network.
        slider.input(regulate, [asked, slider], answers[0], trigger_mode="always_last", **options)
        reset.click(as_trained, asked, [slider, answers[0]], **options)
    return page


def serve(run: Path | str, host: str = "127.0.0.1", port: int | None = None, share: bool = False) -> None:
    """Show a run to people until Ctrl-C.

    Args:
        run: folder of a finished classifier.
        host: the address that is listened on.
        port: None for the first free one from 7860 on.
        share: also at a public address, through Gradio's servers.

    Raises:
        UserError: no finished classifier; the port is taken; gradio is not installed.
    """
    loaded = load_run(run)
    try:
        with served(loaded, Path(run).resolve().name, host, port, share) as url:
            print(f"open {url} (Ctrl-C ends it)", flush=True)
            if host not in ("127.0.0.1", "localhost", "::1"):
                print(f"listening on {host}: everyone who reaches this machine can use it", flush=True)
            threading.Event().wait()
    except Stopped:  # asked to by a signal, which the exit code says
        raise
    except KeyboardInterrupt:
        print("ended")


@contextmanager
def served(
    loaded: Loaded, title: str, host: str = "127.0.0.1", port: int | None = None, share: bool = False
) -> Iterator[str]:
    """The page, served as long as the block runs. Arguments and errors as `serve`.

    What people upload is kept in a folder of its own, which is deleted at the end.

    Returns:
        Its address on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="emoreg-demo-") as uploads:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = uploads  # Gradio asks nothing else where to keep them
        page = None
        try:
            page = build_page(loaded, title)
            gr = _gradio()
            _, url, public = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=MAX_UPLOAD,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                # Fonts of the machine itself: nothing is fetched from elsewhere.
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
                    block_info_text_color="*neutral_600"  # the default is too pale to be read
                ),
            )
            if share and not public:
                raise UserError("Gradio's servers gave no public address; without --share the page works all the same")
            yield public or url
        except OSError as error:
            if "empty port" not in str(error):
                raise
            place = f"port {port}" if port is not None else "any port from 7860 to 7959"
            raise UserError(
                f"cannot listen on {host}, {place}: it is taken, or no address of this machine; "
                "choose another --port or --host"
            ) from None
        finally:
            if page is not None:
                page.close(verbose=False)
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def _gradio() -> Any:
    # Both are read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError:
        raise UserError("the demo needs gradio: pip install 'emoreg[demo]'") from None
    return gradio


def _introduction(loaded: Loaded) -> str:
    if loaded.model.encoder is None:
        return "A plain classifier: it has no emotional branch, and nothing to regulate."
    return (
        "Two responses to the same image, balanced by λ: one of a plain network, one through an emotional encoder "
        "([arXiv:2606.13081](https://arxiv.org/abs/2606.13081))."
    )


def known_classes(classes: Sequence[str]) -> str:
    """What it can answer, in a sentence: whoever uploads a cat should know whether it has heard of cats."""
    if len(classes) > NAMED:
        return f"It knows {len(classes)} classes, such as {', '.join(classes[:NAMED])}."
    return f"It knows {', '.join(classes[:-1])} and {classes[-1]}, and nothing else."


def _responses(regulated: bool) -> list[tuple[str, str]]:
    """Ids and names of the responses, that which answers first."""
    if not regulated:
        return [("regulated", "Answer")]
    return [
        ("regulated", "Regulated response"),
        ("non-emotional", "Non-emotional response"),
        ("emotional", "Emotional response"),
    ]


def _shown(response: Response, classes: Sequence[str]) -> list[dict[str, float]]:
    logits = [response.logits]
    if response.emotional is not None:
        logits += [response.non_emotional, response.emotional]
    return [probabilities(each, classes) for each in logits]


def _felt_components(gr: Any, loaded: Loaded) -> list[Any]:
    """One component a head of stage 1, below a line that says what they are."""
    if loaded.read_out is None:
        gr.Markdown(f"**No felt emotion**: {html.escape(loaded.no_read_out)}.")
        return []
    gr.Markdown(
        "**Felt emotion**: what the emotional encoder read out of the image after stage 1, before it was used for this "
        "task. It does not change with λ."
    )
    several = len(loaded.read_out.heads) > 1
    components = []
    for number, head in enumerate(loaded.read_out.heads):
        label = f"Felt ({html.escape(head.name)})" if several else "Felt"
        if head.space.kind == "dimensions":
            if several:
                gr.Markdown(label)
            components.append(gr.HTML(elem_id=f"felt-{number}"))
        else:
            components.append(gr.Label(label=label, num_top_classes=len(head.space.names), elem_id=f"felt-{number}"))
    return components


def _felt_values(found: Asked, loaded: Loaded) -> list[Any]:
    if loaded.read_out is None or found.felt is None:
        return []
    values: list[Any] = []
    for head in loaded.read_out.heads:
        numbers = found.felt[head.outputs].tolist()
        if head.space.kind == "dimensions":
            values.append(dimensions_drawn(numbers, head.space))
        else:
            values.append(dict(zip(head.space.names, numbers, strict=True)))
    return values


def dimensions_drawn(values: Sequence[float], space: EmotionSpace) -> str:
    """Values of dimensions as HTML: numbers, and a point in the plane of valence and arousal (Russell 1980).

    Args:
        values: (E,), mostly in [-1, 1]; what lies beyond is drawn at the edge.
        space: of dimensions.
    """
    named = dict(zip(space.names, values, strict=True))
    told = ", ".join(f"{html.escape(name)} {f'{value:+.2f}'.replace('-', '−')}" for name, value in named.items())
    if not {"valence", "arousal"} <= set(named):
        return f"<p>{told}</p>"

    def place(value: float, scale: Callable[[float], float]) -> float:
        return scale(max(-1.0, min(1.0, value)))

    x = place(named["valence"], lambda v: 110 + 80 * v)
    y = place(named["arousal"], lambda a: 110 - 80 * a)
    return (
        f'<p>{told}</p><svg viewBox="0 0 220 220" role="img" aria-label="{told}" '
        'style="display:block;width:100%;max-width:260px;margin:auto;font-size:11px" fill="currentColor">'
        '<g fill="none" stroke="currentColor" opacity="0.35"><rect x="30" y="30" width="160" height="160"/>'
        '<path d="M30 110H190M110 30V190"/></g>'
        '<text x="110" y="22" text-anchor="middle">arousal +1</text>'
        '<text x="110" y="206" text-anchor="middle">−1</text>'
        '<text x="20" y="110" text-anchor="middle" transform="rotate(-90 20 110)">valence −1</text>'
        '<text x="200" y="110" text-anchor="middle" transform="rotate(90 200 110)">+1</text>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="#e0691e" stroke="currentColor"/></svg>'
    )
