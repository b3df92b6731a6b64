import platform
import resource

import pytest
import torch

from lapcvae.training.memory import held_memory
from tests.training.made import CPU

PAGES = 64 * 2**20 // resource.getpagesize()


def fewest_pages() -> int:
    """Pages that the system had to give for a tensor of 64 MiB, written once: of several, the fewest."""
    given = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20)
        given.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(given)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_stays_within_and_goes_back_afterwards() -> None:
    assert fewest_pages() > PAGES / 2
    with held_memory(CPU):
        assert fewest_pages() < PAGES / 10
    assert fewest_pages() > PAGES / 2


def test_on_a_gpu_nothing_is_changed() -> None:
    with held_memory(torch.device("cuda")):
        assert fewest_pages() > PAGES / 2
