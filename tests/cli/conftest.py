"""No command may show its user a warning from a library."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

UNSEEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # hidden by default


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        yield
    shown = [f"{each.category.__name__}: {each.message}" for each in caught if not issubclass(each.category, UNSEEN)]
    assert shown == []
