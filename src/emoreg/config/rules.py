"""Checks of setting values; a value out of range raises `SettingError` with the name of the setting."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from emoreg.errors import SettingError


def check_rule(settings: object, names: tuple[str, ...], holds: Callable[[float], bool], rule: str) -> None:
    """Raise SettingError unless the rule holds for the value of each named setting; null always passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not holds(value):
            or_null = ", or null" if getattr(type(settings), name) is None else ""  # optional settings default to null
            raise SettingError(name, f"must {rule}{or_null}, not {value}")


def check_at_least(lowest: int, settings: object, *names: str) -> None:
    """Raise SettingError unless each named setting is null or at least `lowest`."""
    check_rule(settings, names, lambda value: value >= lowest, f"be at least {lowest}")


def check_not_negative(settings: object, *names: str) -> None:
    """Raise SettingError unless each named setting is null, or at least 0 and finite."""
    check_rule(settings, names, lambda value: 0 <= value < inf, "be at least 0 and finite")


def check_positive(settings: object, *names: str) -> None:
    """Raise SettingError unless each named setting is null, or above 0 and finite."""
    check_rule(settings, names, lambda value: 0 < value < inf, "be positive and finite")


def check_share(settings: object, *names: str) -> None:
    """Raise SettingError unless each named setting is null or in [0, 1)."""
    check_rule(settings, names, lambda value: 0 <= value < 1, "lie in [0, 1)")
