"""The loss of a classifier with a relative's head, for any training loop."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import one_hot

from emoreg.errors import SettingError
from emoreg.models.features import pooled_features, require_images
from emoreg.models.regulation import RegulatedClassifier, Response
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.relatives.heads import RelativeHead


def relative_loss(
    classifier: RegulatedClassifier, images: Tensor, labels: Tensor, regulation_loss: RegulationLoss
) -> Tensor:
    """Return CE(z, y), with gradients from which the head's own rule learns too.

        loss = relative_loss(classifier, images, labels, regulation_loss)
        loss.backward()
        optimizer.step()                # of all parameters except `relatives.heads.own_rules(classifier)`
        classifier.head.learn()         # the head's own rule

    Args:
        classifier: in mode embp, bel or liaenn.
        images: normalised, (B, 3, H, W).
        labels: y, class indices (B,), or probabilities (B, K) of mixed images.
        regulation_loss: made from the classifier.

    Raises:
        SettingError: a classifier without such a head; invalid images or labels.
    """
    head = classifier.head
    if not isinstance(head, RelativeHead):
        raise SettingError("classifier", f"must be in mode embp, bel or liaenn, not {classifier.mode}")
    require_images(images)
    features = pooled_features(classifier.backbone, images, classifier.widths[0], "backbone")
    logits = head(features, images)
    loss = regulation_loss(Response(logits, logits, None, None), labels)
    targets = labels if labels.is_floating_point() else one_hot(labels, classifier.num_classes)
    return loss + head.local_loss(features, images, logits, targets.float())
