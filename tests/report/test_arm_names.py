"""The names that a report prints for arms are parsed back."""

from __future__ import annotations

import pytest

from emoreg.report.analysis import label_of
from emoreg.report.arm_names import OF_AFFECT, arm_named
from emoreg.report.run_frame import MODES, WITHOUT_EXPERIENCE, Arm
from emoreg.study.arms import EXPERIENCES
from refusing import refusal


@pytest.mark.parametrize("has_stimuli", [False, True])
def test_every_arm_name_in_a_report_is_parsed_back(has_stimuli: bool) -> None:
    for mode in MODES:
        for experience in EXPERIENCES if mode not in (*WITHOUT_EXPERIENCE, *OF_AFFECT) else ("affect",):
            for variant in (None, "mixture", "own losses, small"):
                arm = Arm(mode, experience, variant, "oasis" if has_stimuli else None)
                if mode in WITHOUT_EXPERIENCE:
                    arm = Arm(mode, None, None, None)
                assert arm_named(label_of(arm, has_stimuli)) == arm


def test_case_blanks_and_the_names_of_modes_in_the_code_make_no_difference() -> None:
    assert arm_named(" learn-e-reg,SHUFFLED ") == arm_named("learned, shuffled") == arm_named("Learn-E-Reg, shuffled")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Learn-E-Regg", "no arm is called 'Learn-E-Regg' (did you mean 'Learn-E-Reg'?)"),
        ("Learn-E-Reg, shufled", "(did you mean 'shuffled' for 'shufled'?)"),
        ("Learn-E-Reg, mixture, rotations", "(did you mean 'rotation' for 'rotations'?)"),
        ("Backbone, fresh", "a run of mode 'none' has the experience 'fresh'; Backbone has none"),
        ("Backbone, mixture", "a run of mode 'none' has the variant 'mixture'; Backbone has none, as it is compared"),
        ("Ensemble, big", "a run of mode 'ensemble' has the variant 'big'; Ensemble has none"),
        ("Transfer, fresh", "a run of mode 'transfer' has the experience 'fresh'; that of Transfer is affect"),
        ("Unregulated, shuffled", "that of Unregulated is affect"),
        ("shuffled_affect", "no arm is called 'shuffled_affect'"),
        (None, "a run has no arm"),
    ],
)
def test_unknown_names_are_refused_with_the_closest_one(name: str | None, message: str) -> None:
    assert message in refusal(lambda: arm_named(name))
