"""The loss of stage 2: of the responses, and of what keeps stage 1 alive beside them."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import RELATIVES
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.errors import SettingError
from emoreg.models.anchor import Anchor
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.relative_loss import relative_loss
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.frozen_features import FrozenFeatures
from emoreg.stages.rehearsal import Rehearsal
from emoreg.training.step import LossOf


def classification_loss(
    classifier: RegulatedClassifier,
    images: ImageSet,
    recipe: TrainRecipe,
    of_classes: Tensor | None = None,
    rehearsal: Rehearsal | None = None,
) -> LossOf:
    """The loss that trains a classifier on batches of `images`, with the features of a frozen encoder made cheap.

    Args:
        classifier: its encoder is looked up where it is frozen.
        images: the training images.
        recipe: loss, encoder, augment and the mode of the regulation are used.
        of_classes: from `class_weights`.
        rehearsal: of the encoder, or of the one network of mode transfer.

    Raises:
        SettingError: a matched budget for a classifier of your own one branch of which gets no gradient; an encoder
            that is frozen as a whole and is to learn.
    """
    _refuse_frozen(classifier)
    loss = recipe.loss
    weights = loss.weights(classifier.encoder is not None)  # your own classifier's mode need not be the recipe's
    classifier.gradient_scale = None  # of a loss of the caller's own loop
    regulation_loss = RegulationLoss(classifier, weights, loss.label_smoothing, loss.budget, of_classes)
    features: FrozenFeatures | None = None
    if classifier.encoder is not None and classifier.freeze_encoder:
        seed = derive_seed(recipe.seed, "views")
        features = FrozenFeatures(classifier.encoder, images, recipe.encoder.views, recipe.augment, seed)

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, RegulatedClassifier)
        targets = batch.targets(model.num_classes)
        if model.mode in RELATIVES:
            return relative_loss(model, batch.images, targets, regulation_loss)
        response = model.respond(batch.images, None if features is None else features(batch))
        return regulation_loss(response, targets)

    rate, is_transfer = recipe.encoder.anchor, recipe.regulation.mode == "transfer"
    has_anchor = rate and (classifier.encoder is not None or is_transfer)
    if not has_anchor and rehearsal is None:
        return loss_of
    return _KeptAlive(loss_of, Anchor(_experienced(classifier), rate) if has_anchor else None, rehearsal)


def _refuse_frozen(classifier: RegulatedClassifier) -> None:
    """SettingError for an encoder that no part of learns, though it is not said to be frozen.

    Not where a classifier is built: it may be one for inference, or a loop of one's own may thaw the encoder later.
    """
    encoder = classifier.encoder
    learns = [] if encoder is None else [parameter.requires_grad for parameter in encoder.parameters()]
    if learns and not any(learns) and not classifier.freeze_encoder:
        raise SettingError(
            "encoder.frozen",
            "must be true with an encoder that is frozen as a whole (of a RegulatedClassifier of your own: "
            "freeze_encoder=True); encoder.requires_grad_(True) lets it learn",
        )


def _experienced(classifier: RegulatedClassifier) -> nn.Module:
    """The network that comes from stage 1: the encoder; in mode transfer, which has no other, the backbone."""
    return classifier.backbone if classifier.encoder is None else classifier.encoder


class _KeptAlive(nn.Module):
    """A loss with what keeps stage 1 alive beside it: the penalty of an anchor, a rehearsal, or both."""

    def __init__(self, loss_of: LossOf, anchor: Anchor | None, rehearsal: Rehearsal | None) -> None:
        super().__init__()
        self.loss_of, self.anchor, self.rehearsal = loss_of, anchor, rehearsal

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, RegulatedClassifier)
        loss, encoder = self.loss_of(model, batch), _experienced(model)
        if self.anchor is not None:
            loss = loss + cast(Tensor, self.anchor(encoder))
        if self.rehearsal is not None:
            loss = loss + cast(Tensor, self.rehearsal(encoder, len(batch.rows)))
        return loss
