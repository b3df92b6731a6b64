"""Which arithmetic the networks run in, and whether they are compiled."""

from __future__ import annotations

import torch

from lapcvae.training.settings import Compile, Precision


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to run networks in bf16: asked for, or `auto` where the hardware multiplies bf16 matrices natively.

    On processors without such units bf16 is emulated and slower than fp32, so `auto` stays with fp32 there.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def use_compiler(choice: Compile, device: torch.device) -> bool:
    """Whether to compile the networks: asked for, or `auto` on a GPU.

    `auto` goes on without the compiler where it fails; `on` lets its error through.
    """
    if choice == "auto" and device.type == "cuda":
        import torch._dynamo  # takes seconds to import, and only a compiled run needs it

        torch._dynamo.config.suppress_errors = True
    return choice == "on" or (choice == "auto" and device.type == "cuda")
