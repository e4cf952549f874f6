"""Compare a classifier's uncertainty with people's: CIFAR-10H (Peterson et al. 2019).

"Human uncertainty makes classification more robust", ICCV 2019: some fifty people classified each test image of
CIFAR-10. The files are NumPy's, and are loaded without running code in them.
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
from emoreg.suites.subject import Scored, Subject, checksum_of

SOURCE = "https://github.com/jcpeterson/cifar-10h"
IMAGES, CLASSES = 10_000, 10  # the test images of CIFAR-10
MAX_BYTES = 4 * 2**20  # the published files have 0.8 MB
MIN_AGREEMENT = 0.9  # of most people with the labels: published as 0.99, and 0.1 for images in another order


def score(subject: Subject, options: HumanUncertaintyOptions) -> Scored:
    """Compare a classifier's probabilities with the shares of people who chose each class.

    Returns:
        cross_entropy, the mean over images of -Σ q log p in nats, of people's shares q and probabilities p; kl, the
        same without the entropy of q, the smallest possible value; agreement, the share of images whose most probable
        class is the one that most people chose (the first of ties).

    Raises:
        UserError: the images are not all test images of CIFAR-10, or in another order than the file; the file is
            missing, or not one of the published ones.
    """
    target = subject.recipe.target
    is_whole = target.name.lower() == "cifar10" and subject.is_tested and len(subject.scored) == IMAGES
    if not is_whole or target.classes is not None:
        raise UserError("human_uncertainty needs all 10,000 test images of cifar10; leave it out for other runs")
    people = read_shares(Path(options.file or ""))
    outputs = subject.predict(subject.scored)
    most = people.argmax(dim=1)
    label_agreement = (most == outputs.labels).double().mean().item()
    if label_agreement < MIN_AGREEMENT:
        raise UserError(
            f"{options.file}: most people agree with the label of {100 * label_agreement:.0f} % of the images, instead "
            "of the published 99 %: the images are in another order; read them from the published archive, or a pack"
        )
    log_p = outputs.logits.double().log_softmax(dim=1)
    cross_entropy = -(people * log_p).sum(dim=1).mean().item()
    entropy = -torch.special.xlogy(people, people).sum(dim=1).mean().item()
    agreement = (outputs.logits.argmax(dim=1) == most).double().mean().item()
    figures = {"cross_entropy": cross_entropy, "kl": cross_entropy - entropy, "agreement": agreement}
    return Scored(figures, f"all {IMAGES:,} test images", {subject.name: checksum_of(subject.scored)})


def read_shares(path: Path) -> Tensor:
    """Read the shares of people who chose each class, float64 (10,000, 10).

    Args:
        path: cifar10h-probs.npy or cifar10h-counts.npy.

    Raises:
        UserError: the file is missing, or has other contents.
    """
    try:
        values = np.load(io.BytesIO(read_bounded(path, MAX_BYTES)), allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; it is published at {SOURCE}") from None
    except Exception as error:  # NumPy raises almost anything for damaged bytes
        raise UserError(f"{path} is not a NumPy array ({shortened(str(error), 100)}); get it from {SOURCE}") from None
    is_number = isinstance(values, np.ndarray) and values.dtype.kind in "iuf"
    if not is_number or values.shape != (IMAGES, CLASSES):
        raise UserError(f"{path} is not the array of {IMAGES:,} images and {CLASSES} classes that {SOURCE} publishes")
    shares = torch.from_numpy(values.astype(np.float64))
    totals = shares.sum(dim=1, keepdim=True)
    if not torch.isfinite(shares).all() or (shares < 0).any() or (totals <= 0).any():
        raise UserError(f"{path} has numbers that are neither shares nor counts; get it from {SOURCE}")
    return shares / totals
