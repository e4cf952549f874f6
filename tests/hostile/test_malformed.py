"""A sample of the inputs of malformed.py: exit code 2, one line that names the place, no code run."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from hostile.malformed import all_inputs, outcome

if not hasattr(os, "mkfifo"):
    pytest.skip("links, pipes and alarms are needed", allow_module_level=True)

INPUTS = all_inputs()
# All of them, by `python tests/hostile/malformed.py`, take a minute or two.
EVERY = 5


def test_there_are_more_than_200_inputs_and_no_two_have_the_same_name() -> None:
    assert len(INPUTS) > 200
    assert [name for name, count in Counter((one.kind, one.name) for one in INPUTS).items() if count > 1] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted({one.kind for one in INPUTS}))
def test_malformed_input_ends_in_one_line_that_names_the_place(kind: str) -> None:
    of_kind = [one for one in INPUTS if one.kind == kind]
    ends = [(one.name, outcome(one)) for one in of_kind[::EVERY]]
    assert [(name, end) for name, end in ends if not end.is_good] == []
