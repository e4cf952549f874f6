"""The warm-up of λ (ours): for a share of the steps a learned λ stays where it starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.optim import Optimizer

from emoreg.models.regulation import RegulatedClassifier
from emoreg.training.loop import Prepare


@contextlib.contextmanager
def warming_up(classifier: RegulatedClassifier, share: float) -> Iterator[Prepare | None]:
    """Within, what `fit` is to call before each step, so that λ is held for this share of them.

    Args:
        classifier: that is trained. Afterwards its λ is not held, also if the training was stopped meanwhile.
        share: in [0, 1).
    """
    if not share or classifier.encoder is None:
        yield None
        return
    regulation = classifier.regulation

    def prepare(share_done: float, optimizer: Optimizer) -> None:
        is_held = share_done < share
        regulation.hold(is_held)
        for parameter in regulation.parameters() if is_held else ():
            # Adam's first steps are as long as its later ones only if it counts them from the first gradient.
            if "step" in (state := optimizer.state.get(parameter, {})):
                state["step"].zero_()

    try:
        yield prepare
    finally:
        regulation.hold(False)
