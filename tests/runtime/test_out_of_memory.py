from __future__ import annotations

import pytest
import torch

from emoreg.runtime.out_of_memory import in_halves
from refusing import refusal

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 7.64 GiB, other allocations: 68.91 GiB)"),
        RuntimeError("Invalid buffer size: 34.36 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to mmap 14483456 bytes from file <weights.pt>: Cannot allocate memory (12)"),
    ],
)
@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_a_batch_that_does_not_fit_is_computed_in_parts_and_in_order(most: int, error: RuntimeError) -> None:
    tried: list[int] = []

    def compute(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if tried[-1] > most:
            raise error
        return list(range(100))[part]

    parts = in_halves(compute, slice(20, 45), CPU)
    assert [number for part in parts for number in part] == list(range(20, 45))
    assert all(0 < len(part) <= most for part in parts) and tried[0] == 25


def test_an_image_that_does_not_fit_alone_is_an_error_in_one_line() -> None:
    def compute(part: slice) -> None:
        raise torch.OutOfMemoryError

    gpu = torch.device("cuda:0")
    assert "cuda:0 has too little memory for one image; choose the CPU" in refusal(
        lambda: in_halves(compute, slice(0, 5), gpu)
    )
    assert refusal(lambda: in_halves(compute, slice(0, 1), CPU)).endswith("for one image")


def test_other_errors_are_left_alone() -> None:
    def compute(part: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(compute, slice(0, 4), CPU)
