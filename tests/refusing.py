"""What several tests ask of every refusal, in a file that they can import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emoreg.errors import UserError


def refusal(call: Callable[[], Any]) -> str:
    """What it is refused with, in one line."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
