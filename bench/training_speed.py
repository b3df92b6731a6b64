"""Images a second in training, against pythae's trainer and PyTorch-VAE's loop: one network, loss, batch and data.

    python -m bench.training_speed --peers FOLDER --pytorch-vae FOLDER [--updates 30] [--batch 64] [--turns 3]

--peers: a folder of them, made as bench/README.md says, so that nothing here changes. --pytorch-vae: a checkout of
github.com/AntixK/PyTorch-VAE. Either may be left out.

The network is the plain VAE of 2017 at 64 px and the loss is this project's; each peer's own trainer calls both. The
peers get fp32 tensors in memory through their own data loaders, as their examples do. Timed between forward passes,
so start and end of a training do not count. This project's loop also mirrors images, clips gradients, averages
weights and guards against bad updates, which neither peer does.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.limits import Limits, against_limits, where_time_goes
from bench.loop_overhead import bare_step
from bench.results import keep, table
from bench.trainables import PLAIN, baseline_of, images_per_second, noise_images, pyramid_of
from lapcvae.io.memory import held_memory
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining, Terms

SIDE, WARM = 64, 5


class Clock(nn.Module):
    """A level's loss on fp32 images, noting when each forward pass begins."""

    def __init__(self, inner: LevelTraining) -> None:
        super().__init__()
        self.inner = inner
        self.moments: list[float] = []

    def terms(self, x: Tensor) -> Terms:
        """Terms of images B 3 S S in [0, 1]."""
        self.note()
        packed = (x.permute(0, 2, 3, 1), torch.zeros(len(x), dtype=torch.int64, device=x.device))
        noise = tuple(torch.randn(len(x), *shape, device=x.device) for shape in self.inner.noise_shapes())
        return self.inner.forward(packed, noise)

    def loss(self, x: Tensor) -> Tensor:
        """The scalar that is minimised."""
        return self.inner.losses(self.terms(x), 0)["model"]

    def note(self) -> None:
        """Note the time."""
        self.moments.append(time.perf_counter())

    def rate(self, batch: int) -> float:
        """Images a second after the first few steps, by the median step."""
        return batch / statistics.median(np.diff(self.moments[WARM:]))


def ours(
    trainable: LevelTraining, rows: dict[str, np.ndarray], batch: int, updates: int, device: torch.device
) -> float:
    """This project's loop, on packed uint8; on a GPU with everything on: in bf16, compiled and replayed."""
    if device.type == "cuda":
        settings = TrainingSettings(updates=10 * updates, batch=batch, log_interval=max(1, updates), compile="full")
        return images_per_second(trainable, rows, settings, device)
    clock = Clock(trainable)
    trainable.register_forward_pre_hook(lambda *_: clock.note())
    settings = TrainingSettings(updates=updates, batch=batch, log_interval=updates, precision="fp32")
    train(trainable, {**rows, "val": rows["val"][:0]}, settings, 0, Processes(device), "lapcvae")
    return clock.rate(batch)


def pythae(trainable: LevelTraining, images: Tensor, batch: int, updates: int, device: torch.device) -> float:
    """pythae's BaseTrainer."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import BaseAE, BaseAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.getLogger("pythae").setLevel(logging.ERROR)
    clock = Clock(trainable)

    class Model(BaseAE):
        def __init__(self) -> None:
            super().__init__(BaseAEConfig(input_dim=(3, SIDE, SIDE), latent_dim=128))
            self.clock = clock

        def forward(self, inputs: dict[str, Tensor], **_: object) -> ModelOutput:
            return ModelOutput(loss=self.clock.loss(inputs["data"]))

    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=-(-updates * batch // len(images)),
            per_device_train_batch_size=batch,
            learning_rate=1e-3,
            keep_best_on_train=True,
            optimizer_cls="AdamW",
            no_cuda=device.type == "cpu",
        )
        BaseTrainer(Model(), BaseDataset(images, torch.zeros(len(images))), training_config=config).train()
    return clock.rate(batch)


def pytorch_vae(trainable: LevelTraining, images: Tensor, batch: int, updates: int, device: torch.device) -> float:
    """PyTorch-VAE's experiment under Lightning's trainer, as its run.py does."""
    import pytorch_lightning as pl

    # Its experiment imports torchvision and its data sets, of which training calls nothing: empty modules will do while
    # it is imported, and are taken away again, since Lightning asks later whether torchvision is there.
    stand_ins = ("torchvision", "torchvision.utils", "torchvision.datasets", "models", "models.types_", "utils")
    for name in stand_ins:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(transforms=None, CelebA=None, BaseVAE=nn.Module, data_loader=None)
    sys.modules["models.types_"].__dict__["Tensor"] = Tensor
    from experiment import VAEXperiment

    for name in stand_ins:
        del sys.modules[name]
    clock = Clock(trainable)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clock = clock

        def forward(self, x: Tensor, **_: object) -> list[Tensor]:
            return [self.clock.loss(x)]

        def loss_function(self, loss: Tensor, **_: object) -> dict[str, Tensor]:
            return {"loss": loss}

    class Experiment(VAEXperiment):
        # Lightning has since dropped the argument `optimizer_idx` of training_step.
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx)

    data = torch.utils.data.TensorDataset(images, torch.zeros(len(images)))
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True)
    parameters = {"kld_weight": 1.0, "LR": 1e-3, "weight_decay": 0.01, "scheduler_gamma": 0.95}
    trainer = pl.Trainer(
        max_steps=updates,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(Experiment(Model(), parameters), loader)
    return clock.rate(batch)


def case(name: str, arguments: argparse.Namespace, device: torch.device) -> None:
    """Run one trainer, or this project's bare step, and print what was found as JSON."""
    batch, updates = arguments.batch, arguments.updates
    raw = noise_images(batch * updates * 16 // 15 + 16, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        stored, rows = pyramid_of(raw, Path(folder, "pyramid"))
        torch.manual_seed(0)
        trainable = baseline_of(stored, Path(folder, "pyramid"), device, **PLAIN)
        if name == "bare step":
            step = bare_step(trainable, batch, device, bf16=False, compiled=False)
            limits = Limits.measured(device)
            with held_memory(device):
                step()
                found: Any = [limits.text(), against_limits(step, batch, arguments.rate, limits)]
                found.append(where_time_goes(step, device))
        elif name == "lapcvae":
            found = ours(trainable, rows, batch, updates, device)
        else:
            images = torch.from_numpy(raw[: batch * updates]).permute(0, 3, 1, 2).float().div(255).contiguous()
            found = PEERS[name](trainable, images, batch, updates, device)
    print(json.dumps(found))


PEERS = {"pythae": pythae, "PyTorch-VAE": pytorch_vae}


def main() -> None:
    """Run every trainer in turns, each in a process of its own, and keep the best rate of each."""
    parser = argparse.ArgumentParser(description="training speed against other trainers")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--pytorch-vae", type=Path)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--case")
    parser.add_argument("--rate", type=float, default=1.0, help="images a second, for the bare step's share")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sys.path += [str(folder) for folder in (arguments.peers, arguments.pytorch_vae) if folder]
    if arguments.case:
        case(arguments.case, arguments, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return

    def found(name: str, rate: float = 1.0) -> Any:
        command = [sys.executable, "-m", "bench.training_speed", *sys.argv[1:], "--case", name, "--rate", str(rate)]
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        return json.loads(said.splitlines()[-1])

    names = ["lapcvae", *(["pythae"] if arguments.peers else [])]
    names += ["PyTorch-VAE"] if arguments.peers and arguments.pytorch_vae else []
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.turns):
        for name in names:
            rates[name].append(found(name))
            print(f"{name}: {rates[name][-1]:,.0f} images/s", flush=True)  # a run that is cut off has said it
    best = {name: max(values) for name, values in rates.items()}
    limits, share, profile = found("bare step", best["lapcvae"])
    fastest_peer = max((rate for name, rate in best.items() if name != "lapcvae"), default=float("nan"))
    out: list[list[object]] = [[name, rate, rate / fastest_peer, min(rates[name])] for name, rate in best.items()]
    gpu = torch.cuda.is_available()
    keep(f"training-speed{'-gpu' * gpu}-batch{arguments.batch}", [
        f"The plain VAE at {SIDE} px, fp32{' (lapcvae: bf16, compiled and replayed)' * gpu}, batch {arguments.batch}: "
        f"images a second by the median step{' (lapcvae: by the clock)' * gpu}, the best of {arguments.turns} turns; "
        "the ratio is to the faster peer.",
        table(["trainer", "images/s", "ratio", "slowest turn"], out),
        limits,
        f"lapcvae. {share} Its bare step:",
        profile,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
