from __future__ import annotations

import logging
import warnings

import pytest

from emoreg.runtime.quiet_libraries import errors_only, hush


def test_only_the_named_warning_is_hushed_even_after_later_filters() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hush(UserWarning, "The variance")
        warnings.simplefilter("error")
        hush(UserWarning, "The variance")
        warnings.warn("The variance is small", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("something else", UserWarning, stacklevel=1)
        with pytest.raises(RuntimeWarning):
            warnings.warn("The variance is small", RuntimeWarning, stacklevel=1)


def test_repeated_calls_leave_one_filter() -> None:
    with warnings.catch_warnings():
        before = len(warnings.filters)
        for _ in range(10):
            hush(UserWarning, "one")
            hush(module="PIL")
        assert len(warnings.filters) == before + 2


def test_errors_are_logged_and_warnings_are_not(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("a_library")
    before = library.level
    with caplog.at_level(logging.INFO), errors_only("a_library"):
        library.warning("Retrying in 1s")
        logging.getLogger("a_library.http").warning("Retrying in 2s")
        library.error("gave up")
    assert caplog.messages == ["gave up"]
    assert library.level == before
