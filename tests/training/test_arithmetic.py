"""How a step computes: what is fp32 under bf16, that nothing in it waits for the device, what the compiler changes."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lapcvae.errors import TrainingError
from lapcvae.models.cascade import run_level
from lapcvae.training import loop
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.loop import train
from lapcvae.training.objective import batch_log_sigma, terms
from lapcvae.training.precision import compiled_and_replayed
from lapcvae.training.processes import Processes
from lapcvae.training.settings import Compile
from lapcvae.training.trainable import LevelTraining, Terms
from tests.training.made import CPU, Small


@pytest.mark.parametrize("k", [1, 2])
def test_under_bf16_networks_are_bf16_and_likelihood_and_kl_are_fp32(small: Small, k: int) -> None:
    trainable = small.trainable(k)
    seen: set[torch.dtype] = set()
    for module in trainable.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    x, coarser = trainable.arrays.gather(small.rows["train"], small.rows["train"] * 0)
    with torch.autocast("cpu", torch.bfloat16):
        done = run_level(trainable.level, x, coarser, "burt", torch.Generator().manual_seed(0))
        rate, _, distortion = terms(trainable.level, done)
    assert seen == {torch.bfloat16}
    # The same densities in double: bf16 has three digits, fp32 seven.
    log_sigma = batch_log_sigma(trainable.level, done).double().exp()
    density = torch.distributions.Normal(done.mean.double(), log_sigma).log_prob(done.target.double())
    q, p = (torch.distributions.Normal(d.mean.double(), d.log_std.double().exp()) for d in (done.posterior, done.prior))
    kl = torch.distributions.kl_divergence(q, p).flatten(1).sum(1).mean()
    torch.testing.assert_close(distortion.double(), -density.flatten(1).sum(1).mean(), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(rate.double(), kl, rtol=1e-4, atol=1e-4)
    assert rate.dtype == distortion.dtype == torch.float32


class Waits(TorchDispatchMode):
    """A context that notes the operations that need a number on the host, which a GPU would be waited for."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note it, and do it."""
        name = func._schema.name.removeprefix("aten::")
        if any(name.startswith(waiting) for waiting in self.NAMES):
            self.met.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("style", [{}, {"latent": "vector", "network": "plain", "sigma": "learned", "free_bits": 0.1}])
def test_nothing_in_an_update_waits_for_the_device(
    small: Small, style: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, updates = Waits(), 0
    plain = loop._Loop._update

    def watched(self: loop._Loop) -> None:
        nonlocal updates
        updates += 1
        with waits:
            plain(self)

    monkeypatch.setattr(loop._Loop, "_update", watched)
    settings = dataclasses.replace(small.training, accumulate=2)
    train(small.trainable(1, **style), small.rows, settings, 0, Processes(CPU), "test")
    assert (updates, waits.met) == (30, [])
    with waits:
        float(torch.ones(1))
    assert waits.met == ["_local_scalar_dense"], "the watch sees what it is for"


def test_a_compiled_level_trains_as_one_that_is_not(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured and differentiated ahead by PyTorch's compiler, without its C++ back end, which needs another one."""
    compiled = []

    def compile_(self: nn.Module) -> None:
        compiled.append(choice)
        nn.Module.compile(self, backend="aot_eager")

    monkeypatch.setattr(LevelTraining, "compile", compile_)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    curves, names = [], []
    for choice in ("off", "on", "full"):
        trainable = small.trainable(1)
        settings = dataclasses.replace(small.training, compile=choice, updates=10, log_interval=5)
        curves.append(train(trainable, small.rows, settings, 0, Processes(CPU), "test").curve)
        names.append(list(trainable.state_dict()))
    assert compiled == ["on", "full"]
    assert names[0] == names[1] == names[2]
    for plain, *others in zip(*curves, strict=True):
        assert all(ahead == pytest.approx(plain, rel=1e-4) for ahead in others)


@pytest.mark.parametrize(
    ("choice", "device", "processes", "updates", "done"),
    [
        ("off", "cuda", 1, 10**6, (False, False)),
        ("on", "cuda", 1, 10, (True, False)),
        ("graphs", "cuda", 1, 10**6, (False, True)),
        ("full", "cuda", 1, 10, (True, True)),
        ("full", "cuda", 2, 10, (True, False)),
        ("auto", "cuda", 1, 9_999, (False, True)),
        ("auto", "cuda", 1, 10_000, (True, True)),
        ("auto", "cpu", 1, 10**6, (False, False)),
        ("on", "cpu", 1, 10, (True, False)),
    ],
)
def test_what_is_compiled_and_replayed_where(
    choice: Compile, device: str, processes: int, updates: int, done: tuple[bool, bool]
) -> None:
    """`auto` is for GPUs, and goes on where the compiler fails."""
    with torch._dynamo.config.patch(suppress_errors=False):
        assert compiled_and_replayed(choice, torch.device(device), processes, updates) == done
        assert torch._dynamo.config.suppress_errors == (choice == "auto" and done[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


LOST = [
    torch.AcceleratorError("CUDA error: unspecified launch failure\nmore lines"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer."),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_device_that_goes_away_is_said_and_the_next_start_goes_on(
    small: Small, folder: Path, error: Exception
) -> None:
    """What PyTorch raises then, raised amid an interval; the checkpoints before it are whole, and nothing differs."""

    class Losing(LevelTraining):
        left = 15

        def forward(self, packed: tuple[torch.Tensor, ...], noise: tuple[torch.Tensor, ...]) -> Terms:
            self.left -= self.training
            if self.left == 0:
                raise error
            return super().forward(packed, noise)

    settings = dataclasses.replace(small.training, checkpoint_interval=10)
    plain = small.trainable(2)
    losing = Losing(plain.level, plain.arrays, plain.kind)
    with pytest.raises(TrainingError, match=r"test: the device failed at update 14 \(.*\); run the same command again"):
        train(losing, small.rows, settings, 0, Processes(CPU), "test", Checkpoints(folder, "x"))
    resumed, unbroken = small.trainable(2), small.trainable(2)
    train(resumed, small.rows, settings, 0, Processes(CPU), "test", Checkpoints(folder, "x"))
    train(unbroken, small.rows, settings, 0, Processes(CPU), "test")
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_other_errors_are_not_taken_for_a_lost_device(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    trainable = small.trainable(2)
    monkeypatch.setattr(trainable, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(trainable, small.rows, small.training, 0, Processes(CPU), "test")


def test_the_status_line_has_all_that_is_asked_of_it(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logged: list[dict[str, float]] = []
    train(small.trainable(2), small.rows, small.training, 0, Processes(CPU), "level2", on_log=logged.append)
    line = capsys.readouterr().err.splitlines()[-1]
    row = logged[-1]
    assert (
        f"loss {row['loss_nats']:.0f} = rate {row['rate_nats']:.0f} + distortion {row['distortion_nats']:.0f} nats, "
        f"gradient {row['gradient_norm']:.2g}, {row['images_per_second']:.0f} images/s, "
        f"{row['peak_memory_bytes'] / 2**30:.1f} GiB"
    ) in line
    assert "level2" in line
    assert functools.reduce(lambda a, b: a and b > 0, (row["images_per_second"], row["peak_memory_bytes"]), True)
