"""Fonts for names in any script: matplotlib's own, and those of the machine for what it lacks.

Charts as SVG need none of this: their text stays text, and the browser finds its letters.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

from emoreg.errors import shortened
from emoreg.runtime.quiet_libraries import hush

if TYPE_CHECKING:  # imported where it is used, so that the command line's help is instant
    from matplotlib.figure import Figure

OWN = "DejaVu Sans"  # comes with matplotlib
LAST_RESORT = "Last Resort"  # of its families: they draw a box for every character


def set_fonts(figure: Figure) -> None:
    """Give all text of a figure that is drawn as pixels the fonts it needs; call it last, before the figure is saved.

    A character that no installed font has is drawn as a box; `lacking_note` says which.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    found, _ = _fonts_for("".join(_letters("".join(text.get_text() for text in texts if isinstance(text, Text)))))
    for text in texts:
        if isinstance(text, Text):
            text.set_fontfamily([OWN, *found])
    hush_glyphs()


def lacking_note(text: str) -> str | None:
    """One line on the characters of a text that no installed font has; None if there are none."""
    _, left = _fonts_for("".join(_letters(text)))
    if not left:
        return None
    which = shortened(" ".join(left), 60)
    return f"no installed font has {which}: drawn as boxes; install one that has, such as Noto Sans CJK for Chinese"


def hush_glyphs() -> None:
    """Ignore matplotlib's warnings of characters without a glyph: SVG keeps them as text, and `lacking_note` tells."""
    hush(UserWarning, r"Glyph .* missing from|Matplotlib currently does not support")


def _letters(text: str) -> list[str]:
    """Those that need a glyph, each once."""
    marks = {chr(number) for number in range(0xFE00, 0xFE10)}  # select a variant of the letter before
    return sorted({c for c in text if not c.isspace() and c not in marks and unicodedata.category(c) not in _UNSEEN})


_UNSEEN = ("Cc", "Cf", "Cs", "Cn")


@functools.lru_cache(maxsize=64)
def _fonts_for(letters: str) -> tuple[tuple[str, ...], str]:
    """Families to add to matplotlib's own for these letters, the fewest that greed finds; the letters none has."""
    from matplotlib import font_manager

    left = _left(font_manager.findfont(OWN), letters)
    found: list[str] = []
    upright = (font for font in font_manager.fontManager.ttflist if font.style == "normal")
    for font in sorted(upright, key=lambda font: ("Sans" not in font.name, abs(_weight(font.weight) - 400), font.name)):
        if not left:
            break
        if font.name in (OWN, *found) or font.name.startswith(LAST_RESORT):
            continue
        still = _left(font.fname, left)
        if len(still) < len(left):
            found.append(font.name)
            left = still
    return tuple(found), left


def _weight(weight: object) -> int:
    return weight if isinstance(weight, int) else 400


def _left(path: str, letters: str) -> str:
    """The letters that a font lacks: all, if it cannot be read or has fixed sizes, as fonts of coloured emoji have."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
        if not font.scalable:
            return letters
        return "".join(letter for letter in letters if not font.get_char_index(ord(letter)))
    except (OSError, RuntimeError):  # removed since matplotlib made its list, or no font that FreeType knows
        return letters
