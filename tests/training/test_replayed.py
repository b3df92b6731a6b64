"""Updates that are replayed as a graph: nothing in them may be a number of the host, or move from its place."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lapcvae.data.batches import PackedImages
from lapcvae.models.cascade import Cascade
from lapcvae.training import loop
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.end_to_end import EndToEnd
from lapcvae.training.layout import Batch
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.replayed import Moment
from lapcvae.training.trainable import LevelTraining, Terms, Trainable
from tests.training.made import CPU, Small, Toy, vae_gan

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STYLES: list[dict[str, Any]] = [
    {"kl_warmup": 20},
    # A bias before batch norm has no gradient but rounding, and Adam follows that: nothing may round otherwise.
    {"latent": "vector", "network": "plain", "sigma": "learned", "free_bits": 0.1},
]


def trained(
    small: Small, trainable: Trainable, device: torch.device = CPU, kept: Path | None = None, **changes: Any
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    settings = dataclasses.replace(small.training, **changes)
    checkpoints = Checkpoints(kept, "x") if kept else None
    result = train(trainable, small.rows, settings, 0, Processes(device), "test", checkpoints)
    return {name: value.cpu() for name, value in trainable.state_dict().items()}, result.curve


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm."""
    return float(_norm({name: a[name] - value for name, value in b.items()}) / _norm(b))


def _norm(weights: dict[str, Tensor]) -> Tensor:
    return torch.stack([value.float().norm() for value in weights.values()]).norm()


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rate and share are fp32 numbers for single operations too: Adam would follow their rounding."""
    plain = loop._Loop._moment

    def moment(self: loop._Loop, update: int) -> Moment:
        exact = plain(self, update)
        return Moment(update, *torch.tensor([exact.learning_rate, exact.share]).tolist())

    monkeypatch.setattr(loop._Loop, "_moment", moment)


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_trains_as_a_loop_of_single_operations_does(small: Small, style: dict[str, Any], accumulate: int) -> None:
    """A step's number, its learning rate and the average's share come as tensors."""
    (plain, curve), (fixed, again) = (
        trained(small, small.trainable(1, **style), compile=way, accumulate=accumulate) for way in ("off", "graphs")
    )
    assert apart(fixed, plain) < (1e-6 if "network" in style else 1e-3)
    assert [row["loss_nats"] for row in again] == pytest.approx([row["loss_nats"] for row in curve], rel=1e-4)
    assert [row["learning_rate"] for row in again] == [row["learning_rate"] for row in curve]


class Written(TorchDispatchMode):
    """A context that notes where the tensors lie that operations in it change, and which they read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()
        self.made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note it, and do it."""
        tensors = torch.utils._pytree.arg_tree_leaves(*args, **(kwargs or {}))
        self.read |= {t.untyped_storage().data_ptr() for t in tensors if isinstance(t, Tensor)} - self.made
        out = func(*args, **(kwargs or {}))
        self.made |= {t.untyped_storage().data_ptr() for t in torch.utils._pytree.tree_leaves(out) if _new(t, tensors)}
        return out


def _new(tensor: object, among: list[object]) -> bool:
    if not isinstance(tensor, Tensor):
        return False
    places = {t.untyped_storage().data_ptr() for t in among if isinstance(t, Tensor)}
    return tensor.untyped_storage().data_ptr() not in places


def test_an_update_reads_from_the_same_places_every_time(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a graph would read from where it lay at the capture: weights, moments, averages, sums, guards, inputs."""
    seen: list[set[int]] = []
    kept: list[object] = []
    plain = loop._Loop._compute

    def watched(self: loop._Loop, batches: list[Batch], moment: Moment) -> None:
        with Written() as written:
            plain(self, batches, moment)
        seen.append(written.read)
        kept.append(self)  # so that nothing else comes to lie where its tensors lay

    monkeypatch.setattr(loop._Loop, "_compute", watched)
    trained(small, small.trainable(1, kl_warmup=20), compile="graphs", updates=25)
    assert len(seen) == 25
    lasting = set.intersection(*seen[1:])
    assert lasting, "weights at least"
    # The first update makes the running sums; an interval's end, at 10 and 20, reads them and begins anew.
    assert all(read == lasting for read in seen[1:]), [len(read - lasting) for read in seen]


def test_it_goes_on_from_a_checkpoint_to_the_same_bytes(small: Small, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    whole, _ = trained(small, small.trainable(2), compile="graphs")
    half = small.trainable(2)
    settings = dataclasses.replace(small.training, compile="graphs", checkpoint_interval=10)

    def stop(row: dict[str, float]) -> None:
        if row["update"] == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half, small.rows, settings, 0, Processes(CPU), "test", Checkpoints(tmp_path / "kept", "x"), stop)
    resumed, _ = trained(small, small.trainable(2), kept=tmp_path / "kept", compile="graphs", checkpoint_interval=10)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_after_a_return_the_learning_rate_is_the_lower_one(small: Small) -> None:
    """Moments of the updates that follow have been sent by then."""

    class Exploding(LevelTraining):
        met = 0

        def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
            terms = super().forward(packed, noise)
            self.met += self.training
            return terms | {"distortion_nats": terms["distortion_nats"] + 1e5 * (self.met in range(13, 16))}

    (plain, curve), (fixed, again) = (
        trained(small, Exploding(small.level(2), small.arrays(2), small.kind), compile=way, checkpoint_interval=10)
        for way in ("off", "graphs")
    )
    assert again[1]["learning_rate"] == curve[1]["learning_rate"] < 0.6 * again[0]["learning_rate"]
    assert apart(fixed, plain) < 1e-3


def test_parts_with_losses_of_their_own(small: Small) -> None:
    (plain, _), (fixed, _) = (trained(small, Toy(small.arrays(2)), compile=way) for way in ("off", "graphs"))
    assert apart(fixed, plain) < 1e-3


def end_to_end(small: Small) -> Trainable:
    arrays = LevelArrays(PackedImages(small.folder / "x1.npy", small.device))
    return EndToEnd(Cascade([small.level(1), small.level(2)]), arrays, 1.0)


@GPU
@pytest.mark.parametrize("made", [vae_gan, end_to_end])
def test_parts_and_whole_cascades_are_replayed_too(small: Small, made: Callable[[Small], Trainable]) -> None:
    """`graphs` raises where the capture fails."""
    device = torch.device("cuda")
    there = dataclasses.replace(small, device=device)
    (_, curve), (_, again) = (trained(small, made(there), device, compile=way) for way in ("off", "graphs"))
    for name in ("loss_nats", "gradient_norm"):
        assert [row[name] for row in again] == pytest.approx([row[name] for row in curve], rel=0.05)


@GPU
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_graph_computes_what_its_operations_do(small: Small, style: dict[str, Any], accumulate: int) -> None:
    """Captured: whatever would have stayed as it was at the capture shows within an interval."""
    device = torch.device("cuda")
    there = dataclasses.replace(small, device=device)
    (_, curve), (_, again) = (
        trained(small, there.trainable(1, **style), device, compile=way, accumulate=accumulate)
        for way in ("off", "graphs")
    )
    for name in ("loss_nats", "val_loss_nats", "gradient_norm"):
        assert [row[name] for row in again] == pytest.approx([row[name] for row in curve], rel=0.02)
    assert not np.isnan([row["loss_nats"] for row in again]).any()
