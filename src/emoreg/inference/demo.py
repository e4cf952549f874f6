"""Serve a web page to try a classifier: upload an image, compare the responses, move λ, see the felt emotion."""

from __future__ import annotations

import errno
import html
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emoreg.config.schema import Fit
from emoreg.data.images.augment import normalise
from emoreg.data.images.decode import ImageError, decode
from emoreg.data.images.files import File
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.errors import UserError, shortened
from emoreg.inference.load import LoadedRun, load_run, require_classes
from emoreg.inference.predict import at_lambda
from emoreg.models.regulation import Response
from emoreg.runtime.optional import importing
from emoreg.runtime.signals import Stopped

TOP = 5  # classes shown per response
MAX_NAMED = 12  # with more classes, the page names only the first of them
MAX_UPLOAD = "64mb"
PORTS = range(7860, 7960)  # tried in this order if no port is given; the same as Gradio's
# Environment for work that needs no network: the user's proxies and certificates may be unusable, and break it.
LOCAL_ONLY = {"no_proxy": "*", "SSL_CERT_FILE": None, "SSL_CERT_DIR": None}
PLAIN = "A plain classifier, without an emotional branch: there is nothing to regulate."
REGULATED = (
    "Two responses to the same image, balanced by λ: one from a plain network, one through an emotional encoder "
    "([arXiv:2606.13081](https://arxiv.org/abs/2606.13081))."
)
RESPONSES = {  # labels by element id; the first is the prediction of the classifier
    "regulated": "Regulated response",
    "non-emotional": "Non-emotional response",
    "emotional": "Emotional response",
}
LAMBDA_INFO = "0: the non-emotional response alone. 1: the emotional response alone."


@dataclass(frozen=True)
class DemoState:
    """What the page keeps of the current image, on the CPU.

    Args:
        response: logits and λ of a batch of one image.
        felt: the emotion read from it, (ΣE,), see `EmotionReadout.read`; None without a readout.
    """

    response: Response
    felt: Tensor | None


@torch.no_grad()
def classify(loaded: LoadedRun, path: Path | str) -> DemoState:
    """Compute the responses to an image file, decoded as for training. Raise ImageError if it cannot be decoded."""

    def read_image(image_size: int, fit: Fit) -> Tensor:
        pixels = torch.from_numpy(decode(File(Path(path).name, Path(path).parent), image_size, fit).copy())
        return normalise(pixels.permute(2, 0, 1)[None])

    readout = loaded.readout
    felt = None if readout is None else readout.read(read_image(readout.image_size, readout.fit))[0]
    return DemoState(loaded.model.respond(read_image(loaded.image_size, loaded.fit)), felt)


def probabilities(logits: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Map each class to its probability, from logits (1, K)."""
    return dict(zip(classes, logits.softmax(dim=1)[0].tolist(), strict=True))


def trained_lambda(response: Response) -> tuple[float, str]:
    """Return the trained λ of an image (the mean if each class has its own), to two digits, and its description."""
    assert response.lam is not None
    values = response.lam.flatten().tolist()
    mean = round(sum(values) / len(values), 2)
    if len(values) == 1:
        return mean, f"{LAMBDA_INFO} As trained: {mean:.2f}."
    return mean, (
        f"{LAMBDA_INFO} As trained, each class has its own λ, from {min(values):.2f} to {max(values):.2f}; the slider "
        "sets the same λ for all classes."
    )


def build_page(loaded: LoadedRun, title: str) -> Any:
    """Build the page as `gradio.Blocks`, without serving it.

    Args:
        loaded: the classifier.
        title: its name on the page.

    Raises:
        UserError: gradio is not installed, or cannot build the page.
    """
    gr, regulated = _gradio(), loaded.model.encoder is not None
    with _gradio_errors("build"), gr.Blocks(title=f"{title} · emoreg", analytics_enabled=False) as page:
        state = gr.State(None)
        gr.Markdown(f"# {html.escape(title)}\n\n{REGULATED if regulated else PLAIN}")
        gr.HTML(f"<p>{html.escape(describe_classes(loaded.classes))}</p>", elem_id="classes")  # names may be markup
        with gr.Row():
            with gr.Column(min_width=300):
                image, slider, reset = _input_components(gr, regulated)
            with gr.Column(min_width=300):
                responses = [
                    gr.Label(label=label, num_top_classes=TOP, show_heading=key == "regulated", elem_id=key)
                    for key, label in (RESPONSES if regulated else {"regulated": "Prediction"}).items()
                ]
            with gr.Column(min_width=300):
                felt = _felt_components(gr, loaded)

        def on_image(path: str | None) -> list[Any]:
            if path is None:
                empty = [gr.update(value=None) for _ in (*responses, *felt)]
                return [None, gr.update(info=LAMBDA_INFO, interactive=False), gr.update(interactive=False), *empty]
            return _shown(gr, loaded, path)

        def on_slider(current: DemoState | None, lam: float) -> dict[str, float] | None:
            if current is None:
                return None
            return probabilities(at_lambda(current.response, lam, loaded.model.mix).logits, loaded.classes)

        def on_reset(current: DemoState | None) -> list[Any]:
            if current is None:
                return [gr.update(), None]
            return [trained_lambda(current.response)[0], probabilities(current.response.logits, loaded.classes)]

        options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        image.change(on_image, image, [state, slider, reset, *responses, *felt], **options)
        # Both responses are in the state, so moving λ needs no forward pass.
        slider.input(on_slider, [state, slider], responses[0], trigger_mode="always_last", **options)
        reset.click(on_reset, state, [slider, responses[0]], **options)
    return page


def _input_components(gr: Any, regulated: bool) -> tuple[Any, Any, Any]:
    """Create the image, the slider of λ, and the button that resets it."""
    sources = ["upload", "clipboard"]
    image = gr.Image(label="Image", sources=sources, type="filepath", height=300, buttons=[], elem_id="image")
    # By default Gradio decodes the file first, and the page would not show why it failed.
    image.preprocess = lambda payload: None if payload is None else payload.path
    initial = {"interactive": False, "visible": regulated}  # until there is an image
    slider = gr.Slider(0, 1, 0.5, step=0.01, label="λ", info=LAMBDA_INFO, buttons=[], elem_id="lambda", **initial)
    return image, slider, gr.Button("As trained", elem_id="as-trained", **initial)


def _shown(gr: Any, loaded: LoadedRun, path: str) -> list[Any]:
    """Classify an uploaded image and return the new values of state, slider, button, responses and felt emotions."""
    try:
        state = classify(loaded, path)
    except ImageError as error:  # show the file's name only, not where the server keeps it
        raise gr.Error(f"{Path(path).name}: {error.reason}", print_exception=False) from None
    response, slider = state.response, gr.update()
    logits = [response.logits]
    if response.emotional is not None:
        logits += [response.non_emotional, response.emotional]
        value, info = trained_lambda(response)
        slider = gr.update(value=value, info=info, interactive=True)
    shown = [probabilities(values, loaded.classes) for values in logits]
    return [state, slider, gr.update(interactive=len(logits) > 1), *shown, *_felt_values(state, loaded)]


def serve(run: Path | str, host: str = "127.0.0.1", port: int | None = None, share: bool = False) -> None:
    """Serve the page of a run until Ctrl-C.

    Args:
        run: folder of a finished run of stage 2.
        host: address to listen on.
        port: 1 to 65535; None for the first free one of `PORTS`.
        share: also open a public address, through Gradio's servers.

    Raises:
        UserError: no finished run of stage 2; the port is in use; gradio is not installed, or cannot serve the page.
    """
    _free_port(host, port)  # fail before anything is loaded
    loaded = load_run(run)
    require_classes(loaded, "the demo")
    try:
        with running_page(loaded, Path(run).resolve().name, host, port, share) as url:
            print(f"open {url} (press Ctrl-C to stop)", flush=True)
            if host not in ("127.0.0.1", "localhost", "::1"):
                print(f"listening on {host}: everyone who can reach this machine can use it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt as error:
        if isinstance(error, Stopped) and error.by != signal.SIGINT:  # the exit code reports other signals
            raise
        print("stopped")


@contextmanager
def running_page(
    loaded: LoadedRun, title: str, host: str = "127.0.0.1", port: int | None = None, share: bool = False
) -> Iterator[str]:
    """Serve the page while the block runs. For arguments and errors see `serve` and `build_page`.

    Uploads are kept in a temporary folder, which is deleted at the end. Proxies set in the environment are used for the
    public address only, never for the page itself.

    Yields:
        The address of the page.
    """
    with (
        tempfile.TemporaryDirectory(prefix="emoreg-demo-") as uploads,
        _environment({"GRADIO_TEMP_DIR": uploads}),  # Gradio has no argument for it
    ):
        page = None
        try:
            page = build_page(loaded, title)
            theme = _gradio().themes.Default(  # system fonts, so that nothing is downloaded
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            )
            # Gradio checks by a request that the page is up, which must not go through a proxy.
            with _gradio_errors("serve"), _environment({"no_proxy": _no_proxy(host)} if share else LOCAL_ONLY):
                _, url, public = page.launch(
                    server_name=host,
                    server_port=_free_port(host, port),
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
                    theme=theme.set(block_info_text_color="*neutral_600"),  # the default has too little contrast
                )
            if share and not public:
                raise UserError("Gradio's servers gave no public address; the page works without --share")
            yield public or url
        finally:
            if page is not None:
                page.close(verbose=False)


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables while the block runs; None unsets one."""

    def set_all(variables: Mapping[str, str | None]) -> None:
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    before = {name: os.environ.get(name) for name in values}
    set_all(values)
    try:
        yield
    finally:
        set_all(before)


def _no_proxy(host: str) -> str:
    """The environment's no_proxy, extended by the names of this machine."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name for name in given.split(",") if name]
    return ",".join(dict.fromkeys([*names, "localhost", "127.0.0.1", "::1", host]))


@contextmanager
def _gradio_errors(verb: str) -> Iterator[None]:
    """Raise UserError for anything that Gradio raises in the block, as its environment and the network can break it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = shortened(f"{type(error).__name__}: {error}", 400)
        raise UserError(f"Gradio cannot {verb} the page: {reason}") from None


def _free_port(host: str, port: int | None) -> int:
    """Return `port`, or the first free one of `PORTS`. Gradio needs it to be free on 127.0.0.1 too."""
    if port is not None and not 0 < port < 65536:
        raise UserError(
            f"the port is {port}; it must be between 1 and 65535. Without --port the first free one is used"
        )
    if not host:
        raise UserError("the host is empty; give --host 127.0.0.1 for this machine only, 0.0.0.0 for all addresses")
    reason = ""
    for candidate in PORTS if port is None else (port,):
        try:
            _bind(host, candidate)
            _bind("127.0.0.1", candidate)
            return candidate
        except (UnicodeError, ValueError, TypeError):  # raised for impossible names
            reason = "not the name of a host"
            break
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno != errno.EADDRINUSE:
                break
    where = f"port {port}" if port is not None else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise UserError(f"cannot listen on {host}, {where}: {reason}; choose another --port or --host")


def _bind(host: str, port: int) -> None:
    """Bind a port and release it. Raise OSError if it is not free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name == "posix":  # on Windows the option would allow ports that are in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _gradio() -> Any:
    # Gradio reads all of these variables when it is imported. It also creates network clients, which may refuse the
    # user's proxies and certificates. The port is our argument, never the environment's.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with importing("gradio", "the demo", "'emoreg[demo]'"), _environment({**LOCAL_ONLY, "GRADIO_SERVER_PORT": None}):
        import gradio
    return gradio


def describe_classes(classes: Sequence[str]) -> str:
    """List the classes in a sentence, so that users know what the classifier can recognise."""
    if len(classes) > MAX_NAMED:
        return f"It knows {len(classes)} classes, such as {', '.join(classes[:MAX_NAMED])}."
    return f"It knows {', '.join(classes[:-1])} and {classes[-1]}, and nothing else."


def _felt_components(gr: Any, loaded: LoadedRun) -> list[Any]:
    """Create an explanation, and one component per stage-1 head."""
    if loaded.readout is None:
        gr.Markdown(f"**No felt emotion**: {html.escape(loaded.no_readout_reason)}.")
        return []
    gr.Markdown(
        "**Felt emotion**: read from the image by the emotional encoder as stage 1 left it, before it was trained for "
        "this task. It does not change with λ."
    )
    several = len(loaded.readout.heads) > 1
    components = []
    for number, head in enumerate(loaded.readout.heads):
        label = f"Felt ({html.escape(head.name)})" if several else "Felt"
        if head.space.kind == "dimensions":
            if several:
                gr.Markdown(label)
            components.append(gr.HTML(elem_id=f"felt-{number}"))
        else:
            components.append(gr.Label(label=label, num_top_classes=len(head.space.names), elem_id=f"felt-{number}"))
    return components


def _felt_values(state: DemoState, loaded: LoadedRun) -> list[str | dict[str, float]]:
    if loaded.readout is None or state.felt is None:
        return []
    shown: list[str | dict[str, float]] = []
    for head in loaded.readout.heads:
        values = state.felt[head.outputs].tolist()
        if head.space.kind == "dimensions":
            shown.append(draw_dimensions(values, head.space))
        else:
            shown.append(dict(zip(head.space.names, values, strict=True)))
    return shown


def draw_dimensions(values: Sequence[float], space: EmotionSpace) -> str:
    """Format values of dimensions as HTML: numbers, and a point on the plane of valence and arousal (Russell 1980).

    Args:
        values: (E,); values outside [-1, 1] are drawn at the edge.
        space: an emotion space of dimensions.
    """
    named = dict(zip(space.names, values, strict=True))
    text = ", ".join(f"{html.escape(name)} {f'{value:+.2f}'.replace('-', '−')}" for name, value in named.items())
    if not {"valence", "arousal"} <= set(named):
        return f"<p>{text}</p>"

    valence, arousal = (max(-1.0, min(1.0, named[name])) for name in ("valence", "arousal"))
    x, y = 110 + 80 * valence, 110 - 80 * arousal
    return (
        f'<p>{text}</p><svg viewBox="0 0 220 220" role="img" aria-label="{text}" '
        'style="display:block;width:100%;max-width:260px;margin:auto;font-size:11px" fill="currentColor">'
        '<g fill="none" stroke="currentColor" opacity="0.35"><rect x="30" y="30" width="160" height="160"/>'
        '<path d="M30 110H190M110 30V190"/></g>'
        '<text x="110" y="22" text-anchor="middle">arousal +1</text>'
        '<text x="110" y="206" text-anchor="middle">−1</text>'
        '<text x="20" y="110" text-anchor="middle" transform="rotate(-90 20 110)">valence −1</text>'
        '<text x="200" y="110" text-anchor="middle" transform="rotate(90 200 110)">+1</text>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="#e0691e" stroke="currentColor"/></svg>'
    )
