from __future__ import annotations

import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from emoreg.config.schema import Granularity, Mixing, Mode
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, VALENCE_AROUSAL_DOMINANCE, EmotionSpace
from emoreg.inference.demo import (
    _gradio,
    _no_proxy,
    build_page,
    classify,
    describe_classes,
    draw_dimensions,
    running_page,
    serve,
    trained_lambda,
)
from emoreg.inference.load import load_run
from emoreg.inference.predict import at_lambda
from emoreg.models.regulation import Response
from inference.combinations import COMBINATIONS, untrained
from refusing import refusal

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


def response_of(lam: torch.Tensor) -> Response:
    return Response(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3), lam)


def test_lambda_as_trained_is_described_for_an_image_and_for_classes() -> None:
    value, info = trained_lambda(response_of(torch.tensor([[0.3049]])))
    assert value == 0.3 and info.endswith("As trained: 0.30.")
    value, info = trained_lambda(response_of(torch.tensor([[0.2, 0.3, 0.7]])))
    assert value == 0.4 and "each class has its own λ, from 0.20 to 0.70" in info


@pytest.mark.parametrize(("mode", "granularity", "mix", "lam"), [kind for kind in COMBINATIONS if kind[0] != "none"])
def test_moving_lambda_needs_no_second_forward_pass(
    mode: Mode, granularity: Granularity, mix: Mixing, lam: float, photos: Path
) -> None:
    loaded = untrained(mode, granularity, mix, lam)
    found = classify(loaded, photos / "a.png").response
    assert found.lam is not None and found.emotional is not None
    for end, alone in ((0.0, found.non_emotional), (1.0, found.emotional)):
        moved = at_lambda(found, end, mix).logits.softmax(dim=1)
        assert torch.allclose(moved, alone.softmax(dim=1), atol=1e-6)
    if granularity != "per_class":  # else the trained λ is not one number
        again = at_lambda(found, float(found.lam), mix).logits.softmax(dim=1)
        assert torch.allclose(again, found.logits.softmax(dim=1), atol=1e-5)


def test_valence_and_arousal_are_drawn_and_names_are_escaped() -> None:
    drawn = draw_dimensions((-0.5, 1.4), VALENCE_AROUSAL)
    assert "valence −0.50, arousal +1.40" in drawn
    assert 'cx="70.0" cy="30.0"' in drawn  # values beyond the edge are drawn on it
    assert "dominance +0.25" in draw_dimensions((0.0, 0.0, 0.25), VALENCE_AROUSAL_DOMINANCE)
    other = draw_dimensions((0.5,), EmotionSpace("dimensions", ("<b>joy",)))
    assert other == "<p>&lt;b&gt;joy +0.50</p>"


def test_few_classes_are_named_and_many_are_counted() -> None:
    assert describe_classes(("cat", "dog", "ship")) == "It knows cat, dog and ship, and nothing else."
    many = describe_classes(tuple(map(str, range(100))))
    assert many.startswith("It knows 100 classes, such as 0, 1,") and "12" not in many


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    message = refusal(lambda: build_page(untrained("none", "scalar", "logits", 0.5), "mine"))
    assert "pip install 'emoreg[demo]'" in message


@pytest.fixture(scope="module")
def url(runs: Path) -> Iterator[str]:
    """Address of the served page of the run "learned"."""
    with running_page(load_run(runs / "learned"), "learned <i>") as url:
        yield url


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.extra("demo")
def test_the_server_is_local_and_serves_no_files(url: str) -> None:
    assert url.startswith("http://127.0.0.1:") and status(url) == 200
    here = Path(__file__)
    for path in ("/etc/passwd", str(here), here.name, str(Path.cwd() / "pyproject.toml"), "pyproject.toml"):
        assert status(f"{url}gradio_api/file={path}") in (403, 404)
    port = int(url.rstrip("/").rpartition(":")[2])

    def serve_again() -> None:
        with running_page(untrained("none", "scalar", "logits", 0.5), "other", port=port):
            pass

    assert f"port {port}: Address already in use; choose another --port" in refusal(serve_again)
    with running_page(untrained("none", "scalar", "logits", 0.5), "other") as other:
        assert other != url and status(other) == 200  # the next free port


PROXY = "http://127.0.0.1:9"  # nothing listens there


@pytest.mark.extra("demo")
@pytest.mark.parametrize(
    "environment",
    [
        {"http_proxy": PROXY},
        {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": ".example.org"},
        {"all_proxy": "socks5://127.0.0.1:9"},
        {"ALL_PROXY": "socks4://127.0.0.1:9", "no_proxy": "10.0.0.0/8"},
        {"http_proxy": "proxy.example:3128"},
        {"http_proxy": "http://proxy:abc"},
        {"https_proxy": "ftp://proxy"},
        {"SSL_CERT_FILE": "/no/such/certificates.pem"},
    ],
    ids=" ".join,
)
def test_proxies_and_certificates_in_the_environment_do_not_stop_the_page(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names = ("no_proxy", "GRADIO_TEMP_DIR", *environment)
    before = {name: os.environ.get(name) for name in names}
    with running_page(untrained("none", "scalar", "logits", 0.5), "mine") as url:
        assert {name: os.environ.get(name) for name in environment} == environment  # restored already
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert directly.open(url, timeout=10).status == 200
    assert {name: os.environ.get(name) for name in names} == before


def test_gradio_is_imported_without_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gradio.py").write_text("import os\nno_proxy = os.environ['no_proxy']\n")
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("no_proxy", ".example.org")
    assert _gradio().no_proxy == "*" and os.environ["no_proxy"] == ".example.org"
    monkeypatch.delitem(sys.modules, "gradio")


def test_with_a_public_address_proxies_are_used_except_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", ".example.org,localhost")
    assert _no_proxy("127.0.0.1") == ".example.org,localhost,127.0.0.1,::1"


@pytest.mark.extra("demo")
def test_errors_of_gradio_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")

    def share() -> None:
        with running_page(untrained("none", "scalar", "logits", 0.5), "mine", share=True):
            pass

    message = refusal(share)
    assert message.startswith("Gradio cannot serve the page: ") and "socks" in message.lower()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 0, "the port is 0; it must be between 1 and 65535"),
        ("127.0.0.1", 65536, "the port is 65536; it must be between 1 and 65535"),
        ("", None, "the host is empty; give --host 127.0.0.1"),
        ("a" * 70, None, "cannot listen on aaa"),
        ("a..b", 8000, "cannot listen on a..b, port 8000: "),
        ("nul\0host", 8000, "not the name of a host"),
        ("http://localhost", 8000, "cannot listen on http://localhost, port 8000"),
    ],
)
def test_an_impossible_host_or_port_is_refused_before_anything_is_loaded(
    host: str, port: int | None, message: str, tmp_path: Path
) -> None:
    assert message in refusal(lambda: serve(tmp_path / "no-run", host, port))


@pytest.mark.extra("demo")
def test_an_address_of_another_machine_is_refused_at_once() -> None:
    def serve_elsewhere() -> None:
        with running_page(untrained("none", "scalar", "logits", 0.5), "other", host="192.0.2.1"):  # RFC 5737
            pass

    assert "cannot listen on 192.0.2.1, ports 7860 to 7959: " in refusal(serve_elsewhere)


@pytest.mark.extra("demo")
@needs_browser
def test_a_browser_uploads_an_image_moves_lambda_and_goes_back(url: str, photos: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        page.wait_for_selector("#image input[type=file]", state="attached")
        assert page.inner_text("h1") == "learned <i>"  # a name, not markup

        def bars(name: str) -> str:
            return page.inner_text(f"#{name}")

        def wait_for(condition: str) -> None:
            page.wait_for_function(condition, timeout=10_000)

        def wait_for_regulated(values: list[int]) -> None:
            read = "[...document.querySelector('#regulated').innerText.matchAll(/(\\d+)%/g)].map(found => found[1])"
            wait_for(f"{read}.join() === '{','.join(map(str, values))}'")

        def move(value: str) -> None:
            box = page.locator("#lambda input[type=number]")
            box.fill(value)
            box.press("Enter")

        page.set_input_files("#image input[type=file]", photos / "b.jpg")
        wait_for("document.querySelector('#emotional').innerText.includes('%')")
        wait_for("document.querySelector('#felt-0').innerText.includes('arousal')")
        trained = bars("regulated")
        shown = percentages(trained)
        assert 1 <= len(shown) <= 5 and all(0 <= value <= 100 for value in shown)
        assert "As trained: 0." in page.inner_text("#lambda")

        move("1")
        wait_for_regulated(percentages(bars("emotional")))
        move("0")
        wait_for_regulated(percentages(bars("non-emotional")))
        page.click("#as-trained")
        # Compares the whole text: a barely trained network has the same percentages at every λ.
        same = "text => document.querySelector('#regulated').innerText === text"
        page.wait_for_function(same, arg=trained, timeout=10_000)

        broken = photos / "broken.png"
        broken.write_text("no image at all")
        page.click("#image button[aria-label='Remove Image'], #image button[aria-label='Clear']")
        wait_for("!document.querySelector('#regulated').innerText.includes('%')")
        page.set_input_files("#image input[type=file]", broken)
        message = "broken.png: not an image in a known format"
        page.wait_for_selector(f"[data-testid=toast-text] >> text={message}", timeout=10_000)

        width = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert width <= 390  # fits the screen of a phone
    assert [address for address in requests if not address.startswith((url, "data:", "blob:"))] == []


def percentages(text: str) -> list[int]:
    return [int(value) for value in re.findall(r"(\d+)%", text)]


@pytest.mark.extra("demo")
def test_the_page_says_why_there_is_no_felt_emotion(runs: Path) -> None:
    def texts(page: Any) -> str:
        return " ".join(str(block["props"].get("value")) for block in page.get_config_file()["components"])

    plain = texts(build_page(load_run(runs / "plain"), "plain"))
    assert "nothing to regulate" in plain and "the classifier has no emotional branch" in plain
    control = texts(build_page(untrained("fixed", "scalar", "logits", 0.5), "control"))
    assert "it was made by a test" in control and "a `ship`|&lt;b&gt;, and nothing else" in control
