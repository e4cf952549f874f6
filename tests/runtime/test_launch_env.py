from __future__ import annotations

from collections.abc import Mapping

import pytest

from emoreg.runtime import launch_env


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1, True)),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "0"}, (4, True)),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "3"}, (4, False)),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, (2, False)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, (1, True)),  # of a batch script, which is alone
    ],
)
def test_who_leads_is_told_by_the_launcher(
    variables: Mapping[str, str], expected: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (launch_env.processes(), launch_env.rank() == 0) == expected
