"""A few arms, for tests of studies."""

from __future__ import annotations

from emoreg.study.arms import Arm

BACKBONE, LEARNED, FRESH = Arm("none"), Arm("learned", "affect"), Arm("learned", "fresh")
SHUFFLED, ENSEMBLE = Arm("learned", "shuffled"), Arm("ensemble")
