import platform
import resource

import pytest
import torch

from lapcvae.training.memory import held_memory
from tests.training.made import CPU

PAGES = 64 * 2**20 // resource.getpagesize()


def pages_asked_for() -> int:
    """Pages that the system had to give for a tensor of 64 MiB, written once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_stays_within_and_goes_back_afterwards() -> None:
    with held_memory(CPU):
        pages_asked_for()
        assert pages_asked_for() < PAGES / 10
    assert pages_asked_for() > PAGES / 10
    assert pages_asked_for() > PAGES / 10


def test_on_a_gpu_nothing_is_changed() -> None:
    with held_memory(torch.device("cuda")):
        pages_asked_for()
        assert pages_asked_for() > PAGES / 10
