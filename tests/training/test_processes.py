"""Two processes train as one does with the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lapcvae.errors import ConfigError
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes, SeveralProcesses
from tests.training.made import CPU, STYLES, Small, Toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What two processes under torchrun, with gloo, left of batches of 4 images each, and what they said."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "tests.training.two_processes", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.mark.parametrize("style", [*(s for s in STYLES if s != "batch norm"), "two parts"])
def test_two_processes_train_as_one(small: Small, together: tuple[Path, str], style: str) -> None:
    """The same curve and weights as one process with batches of 8."""
    trainable = Toy(small.arrays(2)) if style == "two parts" else small.trainable(2, **STYLES[style])
    alone = train(trainable, small.rows, small.training, 0, Processes(CPU), "one")
    curve = json.loads((together[0] / f"{style}.json").read_text())
    assert len(alone.curve) == len(curve) == 3
    for one, two in zip(alone.curve, curve, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    weights = load_file(together[0] / f"{style}.safetensors")
    for name, value in trainable.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


def test_two_processes_that_were_stopped_end_with_the_same_bytes(together: tuple[Path, str]) -> None:
    unbroken, resumed = (load_file(together[0] / f"{name}.safetensors") for name in ("spatial", "stopped"))
    assert unbroken.keys() == resumed.keys()
    for name, value in unbroken.items():
        assert torch.equal(value, resumed[name]), name
    assert "stopped: going on from update 20 of 30" in together[1]


def test_batch_norm_on_processors_is_warned_of(together: tuple[Path, str]) -> None:
    assert together[1].count("batch norm sees each process's images only") == 1


def test_a_batch_that_cannot_be_divided(small: Small) -> None:
    three = Processes(CPU)
    three.count = 3
    with pytest.raises(ConfigError, match=r"`batch` \(8\) must be a multiple of 3"):
        train(small.trainable(2), small.rows, small.training, 0, three, "test")


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match="install the extra `distributed`"):
        SeveralProcesses()
