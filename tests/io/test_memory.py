import json
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lapcvae.io.memory import held_memory
from tests.training.made import CPU

ROOT = Path(__file__).parents[2]
PAGES = 64 * 2**20 // resource.getpagesize()


def pages() -> int:
    """Pages that the system had to give for a tensor of 64 MiB, written once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def tell_pages() -> None:
    """Print them: of several times the fewest before, on a GPU and within, and of the first time afterwards."""
    found = {"before": min(pages() for _ in range(6))}
    with held_memory(torch.device("cuda")):
        found["on a GPU"] = min(pages() for _ in range(6))
    with held_memory(CPU):
        found["within"] = min(pages() for _ in range(6))
    found["afterwards"] = pages()  # later ones may find the first one's place free
    print(json.dumps(found))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_stays_within_and_goes_back_afterwards() -> None:
    # A new process: what earlier tests have freed amid this one's memory would serve tensors without the system.
    code = "from tests.io.test_memory import tell_pages; tell_pages()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.pop("within") < PAGES / 10
    assert min(found.values()) > PAGES / 2, found
