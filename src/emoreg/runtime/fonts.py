"""Fonts for text in any script: matplotlib's own, and installed fonts for characters that it lacks.

SVG charts do not need this: their text stays text, and the browser chooses the fonts.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

from emoreg.errors import shortened
from emoreg.runtime.quiet_libraries import hush

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "DejaVu Sans"  # comes with matplotlib
LAST_RESORT = "Last Resort"  # prefix of the fonts that draw a box for every character


def set_fonts(figure: Figure) -> None:
    """Set the fonts that the text of a raster figure needs; call it last, just before saving the figure.

    Characters that no installed font has are drawn as boxes; `lacking_note` lists them.
    """
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    found, _ = _fonts_for(_letters("".join(text.get_text() for text in texts)))
    for text in texts:
        text.set_fontfamily([OWN, *found])
    hush_glyphs()


def lacking_note(text: str) -> str | None:
    """Describe in one line the characters of a text that no installed font has; None if there are none."""
    _, missing = _fonts_for(_letters(text))
    if not missing:
        return None
    characters = shortened(" ".join(missing), 60)
    return f"no installed font has {characters}: drawn as boxes; install one, such as Noto Sans CJK for Chinese"


def hush_glyphs() -> None:
    """Ignore matplotlib's warnings of missing glyphs: SVG keeps the text, and `lacking_note` reports them for PNG."""
    hush(UserWarning, r"Glyph .* missing from|Matplotlib currently does not support")


def _letters(text: str) -> str:
    """Return the distinct characters of a text that need a glyph, sorted."""
    seen = {c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn")}
    marks = {chr(number) for number in range(0xFE00, 0xFE10)}  # select a variant of the preceding character
    return "".join(sorted(seen - marks))


@functools.lru_cache(maxsize=64)
def _fonts_for(letters: str) -> tuple[tuple[str, ...], str]:
    """Choose font families to add to matplotlib's own for these letters, greedily; also return letters without any."""
    from matplotlib import font_manager

    missing = _missing(font_manager.findfont(OWN), letters)
    families: list[str] = []
    upright = (font for font in font_manager.fontManager.ttflist if font.style == "normal")
    for font in sorted(upright, key=lambda font: ("Sans" not in font.name, abs(_weight(font.weight) - 400), font.name)):
        if not missing:
            break
        if font.name in (OWN, *families) or font.name.startswith(LAST_RESORT):
            continue
        still_missing = _missing(font.fname, missing)
        if len(still_missing) < len(missing):
            families.append(font.name)
            missing = still_missing
    return tuple(families), missing


def _weight(weight: object) -> int:
    return weight if isinstance(weight, int) else 400


def _missing(path: str, letters: str) -> str:
    """Return the letters that a font lacks; all if it is unreadable or not scalable, such as colour emoji fonts."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
        if not font.scalable:
            return letters
        return "".join(letter for letter in letters if not font.get_char_index(ord(letter)))
    except (OSError, RuntimeError):  # removed since matplotlib made its list, or unknown to FreeType
        return letters
