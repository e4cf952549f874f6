"""A few arms, for tests of studies."""

from __future__ import annotations

from emoreg.study.arms import PlannedArm

BACKBONE, LEARNED, FRESH = PlannedArm("none"), PlannedArm("learned", "affect"), PlannedArm("learned", "fresh")
SHUFFLED, ENSEMBLE = PlannedArm("learned", "shuffled"), PlannedArm("ensemble")
