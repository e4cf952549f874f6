from __future__ import annotations

import warnings

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from emoreg.runtime import fonts
from emoreg.runtime.fonts import OWN, lacking_note, set_fonts

MARK = "\ufe0f"  # selects the coloured variant of an emoji


@pytest.fixture(autouse=True)
def _forget() -> None:
    fonts._fonts_for.cache_clear()


def without(monkeypatch: pytest.MonkeyPatch, *families: str) -> None:
    """Remove all installed fonts, and matplotlib's additional ones."""
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname and font.name not in families]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)


@pytest.mark.parametrize("text", ["", "cat", "café – λ\n", "Кошка", "γάτα", "قطة", "heart\u200d❤" + MARK])
def test_text_in_matplotlibs_font_needs_no_other_font(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    assert lacking_note(text) is None


@pytest.mark.parametrize("text", ["猫", "ネコ", "고양이", "बिल्ली", "แมว"])
def test_letters_that_no_font_has_are_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    note = lacking_note(f"cat {text}")
    assert note is not None and text[0] in note and "c a t" not in note and "\n" not in note


def test_fonts_that_are_installed_are_found_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """STIX, which comes with matplotlib, has brackets that DejaVu Sans lacks; it stands for an installed font."""
    without(monkeypatch)
    assert lacking_note("⏠") is None
    figure = Figure()
    figure.text(0, 0, "a ⏠")
    set_fonts(figure)
    (written,) = (text for text in figure.findobj(Text) if isinstance(text, Text) and "⏠" in text.get_text())
    own, found = written.get_fontfamily()
    assert own == OWN and "STIX" in found
    fonts._fonts_for.cache_clear()
    without(monkeypatch, *(font.name for font in font_manager.fontManager.ttflist if "STIX" in font.name))
    assert lacking_note("⏠") is not None


def test_a_figure_with_letters_that_no_font_has_is_drawn_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    figure = Figure((1, 1))
    figure.text(0, 0, "猫 बिल्ली 😀")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_fonts(figure)
        figure.canvas.draw()


def test_a_font_that_was_removed_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = font_manager.FontEntry(fname="/nowhere/NotoSans.ttf", name="Noto Sans")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [gone])
    assert lacking_note("猫") is not None
