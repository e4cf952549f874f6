from __future__ import annotations

import numpy as np
import pytest
import torch

from emoreg.inference.answer import Answer, answers_of

TEMPERATURES = (0.01, 0.3, 0.999, 1.0, 1.7, 30.0, 100.0)


def answers(logits: torch.Tensor, temperature: float | None) -> list[Answer]:
    return answers_of(logits, tuple(map(str, range(logits.shape[1]))), "classification", temperature)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_softmax_takes_logits_divided_by_the_temperature(temperature: float) -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    found = np.stack([answer.probabilities for answer in answers(logits, temperature)])
    expected = (logits.double() / temperature).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and found.max() <= 1


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("gap", [10.0, 1e-2, 1e-5, 2e-7], ids=str)
def test_the_top_class_is_the_same_at_every_temperature(temperature: float, gap: float) -> None:
    logits = gap * torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    before, after = answers(logits, None), answers(logits, temperature)
    assert [answer.index for answer in after] == [answer.index for answer in before]


def test_without_a_temperature_probabilities_are_the_softmax_to_the_bit() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    found = np.stack([answer.probabilities for answer in answers(logits, None)])
    np.testing.assert_array_equal(found, logits.softmax(dim=1).numpy())
