from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoreg.config.schema import BackboneSettings
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL
from emoreg.data.stimuli.procedural import compose
from emoreg.errors import UserError
from emoreg.inference.affect_plane import APART, draw_affect_plane, rows_without_overlap
from emoreg.inference.load import EmotionReadout, load_readout
from emoreg.models.backbones import build_backbone
from emoreg.stages.affective_heads import heads_of
from emoreg.stages.pretrain import AffectiveModel


def test_the_same_encoder_and_images_give_the_same_picture() -> None:
    torch.manual_seed(0)
    model = AffectiveModel(build_backbone(BackboneSettings(name="resnet8"), 8), 2).eval()
    readout = EmotionReadout(model, heads_of([("emotion", VALENCE_AROUSAL)]), 8, Path())
    images, labels = compose(6, 8, seed=0)
    one, again = (draw_affect_plane(readout, images, labels, images, "digits") for _ in range(2))
    assert one == again
    assert min(Image.open(io.BytesIO(one)).size) > 400


def test_drawn_images_neither_overlap_nor_lie_outside() -> None:
    felt = np.random.default_rng(0).uniform(-1.3, 1.3, (200, 2)).astype(np.float32)
    drawn = felt[rows_without_overlap(felt)]
    assert len(drawn) > 20 and np.abs(drawn).max() <= 1
    apart = np.abs(drawn[:, None] - drawn).max(axis=-1) + 2 * np.eye(len(drawn))
    assert apart.min() >= APART


def test_an_encoder_that_learned_no_emotion_is_refused(runs: Path) -> None:
    assert load_readout(runs / "experience").heads[0].space == VALENCE_AROUSAL
    with pytest.raises(UserError, match="is a run of stage 2"):
        load_readout(runs / "plain")
