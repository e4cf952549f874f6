"""The check of error messages that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emoreg.errors import UserError


def refusal(call: Callable[[], Any]) -> str:
    """Call, require a UserError of one line, and return its message."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
