"""Detection of images of other things by a classifier's confidence: AUROC and FPR95.

Two scores should be higher on the run's own images: the largest probability (MSP, Hendrycks & Gimpel 2017) and the
energy (Liu et al. 2020, `subject.energy_of`).
"""

from __future__ import annotations

from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from emoreg.errors import UserError
from emoreg.suites.options import OutOfDistributionOptions
from emoreg.suites.subject import Outputs, Scored, Subject, checksum_of, drawn, load_drawn, other_target

KEPT = 0.95  # share of the own images above the threshold


def score(subject: Subject, options: OutOfDistributionOptions) -> Scored:
    """Compute AUROC and FPR95 against other sets.

    Returns:
        auroc_msp, auroc_energy, fpr95_msp and fpr95_energy, as means over the other sets and for each of them, such as
        <set>_auroc_msp. AUROC is the probability that an own image has a higher score than another one; 0.5 is chance.
        FPR95 is the share of other images above the threshold that 95 % of the own images pass.

    Raises:
        UserError: one of the other sets is missing, cannot be read, is the run's own, or has the images of another.
    """
    own = drawn(subject.scored, options.images, options.seed)
    known = _scores(subject.predict(own))
    checksums = {subject.name: checksum_of(own)}
    figures: dict[str, float] = {}
    counts = []
    for number, each in enumerate(options.sets):
        target, settings = other_target(subject, options.sets, number)
        images = load_drawn(subject, target.test, settings, options)
        checksum = checksum_of(images)
        for earlier, its_checksum in checksums.items():
            if its_checksum == checksum:
                whose = "the run itself" if earlier == subject.name else earlier
                raise UserError(f"out_of_distribution: {each.label} has the images of {whose}; name other sets")
        checksums[each.label] = checksum
        counts.append(f"{len(images):,} of {each.label}")
        for name, other in _scores(subject.predict(images)).items():
            auroc, fpr95 = separation(known[name], other)
            figures |= {f"{each.label}_auroc_{name}": auroc, f"{each.label}_fpr95_{name}": fpr95}
    means = {
        f"{kind}_{name}": fmean(figures[f"{each.label}_{kind}_{name}"] for each in options.sets)
        for kind in ("auroc", "fpr95")
        for name in known
    }
    return Scored(means | figures, f"{len(own):,} {subject.name} against {' and '.join(counts)}", checksums)


def _scores(outputs: Outputs) -> dict[str, Tensor]:
    return {"msp": outputs.logits.double().softmax(dim=1).amax(dim=1), "energy": outputs.energy}


def separation(own: Tensor, other: Tensor) -> tuple[float, float]:
    """Compute AUROC and FPR95 of the scores of own images (N,), which should be higher, and of others (M,)."""
    from sklearn.metrics import roc_auc_score, roc_curve

    scores = torch.cat([own, other]).numpy()
    is_own = np.repeat([1, 0], [len(own), len(other)])
    passing_others, passing, _ = roc_curve(is_own, scores, drop_intermediate=False)  # among ties it drops thresholds
    return float(roc_auc_score(is_own, scores)), float(passing_others[int(np.argmax(passing >= KEPT))])
