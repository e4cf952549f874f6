"""Whether a classifier is unsure where people are: CIFAR-10H (Peterson et al. 2019).

"Human uncertainty makes classification more robust", ICCV 2019: some fifty people classified each test image of
CIFAR-10. The files are NumPy's and come from strangers: no code in them is run.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emoreg.errors import UserError, shortened
from emoreg.runtime.safe_io import read_bounded
from emoreg.suites.options import HumanUncertaintyOptions
from emoreg.suites.scored import Scored
from emoreg.suites.subject import Subject, checksum_of

SOURCE = "https://github.com/jcpeterson/cifar-10h"
IMAGES, CLASSES = 10_000, 10  # the test images of CIFAR-10
MAX_BYTES = 4 * 2**20  # the published files have 0.8 MB
LEAST_AGREEMENT = 0.9  # of the answers of most people with the labels; published: 0.99. In another order it is 0.1


def score(subject: Subject, options: HumanUncertaintyOptions) -> Scored:
    """How near a classifier's probabilities are to the shares of people's answers.

    Returns:
        cross_entropy, the mean over the images of -Σ q log p, nats, of people's shares q and probabilities p; kl, the
        same without the entropy of q, which no classifier can undercut; agreement, the share of images whose most
        probable class is that of most people (of ties the first).

    Raises:
        UserError: other images than all test images of CIFAR-10, or in another order than the file; a file that is not
            there, or is none of those published.
    """
    target = subject.recipe.target
    is_whole = target.name.lower() == "cifar10" and subject.is_tested and len(subject.scored) == IMAGES
    if not is_whole or target.classes is not None:
        raise UserError("human_uncertainty is of all 10,000 test images of cifar10; leave it out for other runs")
    people = read_shares(Path(options.file or ""))
    answers = subject.answers(subject.scored)
    most = people.argmax(dim=1)
    if (found := (most == answers.labels).double().mean().item()) < LEAST_AGREEMENT:
        raise UserError(
            f"{options.file}: most people answer as the label says for {100 * found:.0f} % of the images, where 99 % "
            "are published: the images are in another order; read them from the published archive, or a pack of it"
        )
    log_p = answers.logits.double().log_softmax(dim=1)
    cross_entropy = -(people * log_p).sum(dim=1).mean().item()
    entropy = -torch.special.xlogy(people, people).sum(dim=1).mean().item()
    agreement = (answers.logits.argmax(dim=1) == most).double().mean().item()
    figures = {"cross_entropy": cross_entropy, "kl": cross_entropy - entropy, "agreement": agreement}
    return Scored(figures, f"all {IMAGES:,} test images", {subject.name: checksum_of(subject.scored)})


def read_shares(path: Path) -> Tensor:
    """The shares of people's answers, float64 (10,000, 10), from cifar10h-probs.npy or cifar10h-counts.npy.

    Raises:
        UserError: it is not there, or holds anything else.
    """
    try:
        values = np.load(io.BytesIO(read_bounded(path, MAX_BYTES)), allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; it is published at {SOURCE}") from None
    except Exception as error:  # on broken bytes, NumPy raises nearly anything
        raise UserError(f"{path} is no array of NumPy's ({shortened(str(error), 100)}); get it from {SOURCE}") from None
    is_number = isinstance(values, np.ndarray) and values.dtype.kind in "iuf"
    if not is_number or values.shape != (IMAGES, CLASSES):
        raise UserError(f"{path} is not the numbers of {IMAGES:,} images and {CLASSES} classes that {SOURCE} publishes")
    shares = torch.from_numpy(values.astype(np.float64))
    totals = shares.sum(dim=1, keepdim=True)
    if not torch.isfinite(shares).all() or (shares < 0).any() or (totals <= 0).any():
        raise UserError(f"{path} holds numbers that are no shares or counts of answers; get it from {SOURCE}")
    return shares / totals
