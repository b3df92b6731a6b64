"""Cut tensors: views in the order of memory, on which AdamW does what it does on whole ones."""

import pytest
import torch
from torch import Tensor

from lapcvae.training import pieces
from lapcvae.training.pieces import cut, in_pieces


def made(seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    convolution = torch.randn(40, 32, 3, 3).to(memory_format=torch.channels_last)
    return [convolution, torch.randn(20, 30, 1, 1), torch.randn(7), torch.randn(())]


def test_adamw_on_pieces_is_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "NUMBERS", 1000)
    found = []
    for whole in (True, False):
        columns = [made(0), made(1), *([torch.zeros_like(t) for t in made(0)] for _ in range(2))]
        steps = [torch.zeros(()) for _ in columns[0]]
        torch._foreach_add_(steps, 1.0)
        weights, gradients, means, squares, counts = ([*columns, steps]) if whole else cut(*columns, steps)
        assert whole or max(t.numel() for t in weights) == 1000
        torch._fused_adamw_(
            weights, gradients, means, squares, [], counts, amsgrad=False, lr=0.1, beta1=0.9, beta2=0.99,
            weight_decay=0.01, eps=1e-8, maximize=False,
        )  # fmt: skip
        found.append([t for column in columns for t in column])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_tensors_are_whole_where_no_graph_is_captured() -> None:
    tensors = made(0)
    assert in_pieces(tensors)[0] is tensors


def test_layouts_that_differ_are_refused() -> None:
    convolution = made(0)[0]
    with pytest.raises(ValueError, match="different layouts"):
        cut([convolution], [convolution.contiguous()])
    with pytest.raises(ValueError, match="gaps"):
        cut([convolution[:, ::2]])
