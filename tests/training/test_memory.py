import json
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lapcvae.training.memory import held_memory
from tests.training.made import CPU

ROOT = Path(__file__).parents[2]
PAGES = 64 * 2**20 // resource.getpagesize()


def fewest_pages() -> int:
    """Pages that the system had to give for a tensor of 64 MiB, written once: of several, the fewest."""
    given = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20)
        given.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(given)


def tell_pages() -> None:
    """Print them before, within and after, and within on a GPU."""
    found = {"before": fewest_pages()}
    with held_memory(CPU):
        found["within"] = fewest_pages()
    found["after"] = fewest_pages()
    with held_memory(torch.device("cuda")):
        found["within, on a GPU"] = fewest_pages()
    print(json.dumps(found))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_stays_within_and_goes_back_afterwards() -> None:
    # A new process: what earlier tests have freed amid this one's memory would serve tensors without the system.
    code = "from tests.training.test_memory import tell_pages; tell_pages()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.pop("within") < PAGES / 10
    assert min(found.values()) > PAGES / 2, found
