from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from emoreg.runtime import launch_env
from refusing import refusal

LAUNCHERS = ("TORCHELASTIC_", "WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_", "OMPI_", "PMI_")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1, True)),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "0"}, (4, True)),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "3"}, (4, False)),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, (2, False)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, (1, True)),  # a batch script, which is a single process
    ],
)
def test_the_rank_comes_from_the_launcher(
    variables: Mapping[str, str], expected: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, variables)
    assert (launch_env.processes(), launch_env.rank() == 0) == expected


def environment(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1"}, "torchrun has started 2 processes: no"),
        ({"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "0"}, "srun has started 3 processes: no"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "mpirun has started 2 processes: no"),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, "mpirun has started 4 processes: no"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
            "a launcher that sets WORLD_SIZE has started 2 processes: no",
        ),
    ],
)
def test_several_processes_are_refused_where_one_is_expected(
    variables: Mapping[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, variables)
    assert refusal(lambda: launch_env.refuse_launchers("no")) == told
    if "mpirun" in told or "WORLD_SIZE" in told:
        assert refusal(lambda: launch_env.refuse_other_launchers("no")) == told
    else:
        launch_env.refuse_other_launchers("no")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "PMI_SIZE": "1", "PMI_RANK": "0"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "1"},  # a Kubernetes job with one process per machine
        {"WORLD_SIZE": "many", "RANK": "0", "LOCAL_RANK": "0"},
    ],
)
def test_a_single_process_is_never_refused(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, variables)
    launch_env.refuse_launchers("no")
    launch_env.refuse_other_launchers("no")
