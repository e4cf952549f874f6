"""The warm-up of λ (ours): for a share of the steps a learned λ keeps its starting value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.optim import Optimizer

from emoreg.models.regulation import Holdable, RegulatedClassifier
from emoreg.training.step import Prepare


@contextlib.contextmanager
def warming_up(classifier: RegulatedClassifier, share: float) -> Iterator[Prepare | None]:
    """Provide the `prepare` of an `Objective`, which holds λ in the first steps; None without a warm-up.

    Args:
        classifier: to be trained. On exit its λ is released, even if training was stopped.
        share: of the steps, in [0, 1).
    """
    if not share or classifier.encoder is None:
        yield None
        return
    regulation = classifier.regulation
    assert isinstance(regulation, Holdable)

    def prepare(share_done: float, optimizer: Optimizer) -> None:
        is_held = share_done < share
        regulation.hold(is_held)
        for parameter in regulation.parameters() if is_held else ():
            # Adam's bias correction must count steps from the first non-zero gradient.
            if "step" in (state := optimizer.state.get(parameter, {})):
                state["step"].zero_()

    try:
        yield prepare
    finally:
        regulation.hold(False)
