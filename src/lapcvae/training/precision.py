"""Which arithmetic the networks run in."""

from __future__ import annotations

import torch

from lapcvae.training.settings import Precision


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to run networks in bf16: asked for, or `auto` where the hardware multiplies bf16 matrices natively.

    On processors without such units bf16 is emulated and slower than fp32, so `auto` stays with fp32 there.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()
