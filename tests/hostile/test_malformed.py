"""A sample of the inputs of malformed.py ends with exit code 2 and one line that names the place, and runs no code."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from hostile.malformed import all_inputs, outcome

if not hasattr(os, "mkfifo"):
    pytest.skip("needs links, pipes and alarms", allow_module_level=True)

INPUTS = all_inputs()
EVERY = 5  # `python tests/hostile/malformed.py` runs all of them


def test_there_are_more_than_200_inputs_with_unique_names() -> None:
    assert len(INPUTS) > 200
    names = Counter((malformed.kind, malformed.name) for malformed in INPUTS)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted({malformed.kind for malformed in INPUTS}))
def test_malformed_input_ends_in_one_line_that_names_the_place(kind: str) -> None:
    inputs = [malformed for malformed in INPUTS if malformed.kind == kind][::EVERY]
    results = [(malformed.name, outcome(malformed)) for malformed in inputs]
    assert [(name, result) for name, result in results if not result.is_good] == []
