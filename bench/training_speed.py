"""Images a second in training, against pythae's trainer and PyTorch-VAE's loop: one network, loss, batch and data.

    python -m bench.training_speed --peers FOLDER --pytorch-vae FOLDER [--updates 30] [--batches 64 256]

--peers: a folder of them, made as bench/README.md says, so that nothing here changes. --pytorch-vae: a checkout of
github.com/AntixK/PyTorch-VAE. Either may be left out.

The network is the plain VAE of 2017 at 64 px and the loss is this project's; each peer's own trainer calls both. The
peers get fp32 tensors in memory through their own data loaders, as their examples do. Timed between forward passes,
so start and end of a training do not count. This project's loop also mirrors images, clips gradients, averages
weights and guards against bad updates, which neither peer does.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.results import keep, table
from bench.trainables import PLAIN, baseline_of, noise_images, pyramid_of
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining, Terms

SIDE, WARM = 64, 5


class Clock(nn.Module):
    """A level's loss on fp32 images, noting when each forward pass begins."""

    def __init__(self, inner: LevelTraining) -> None:
        super().__init__()
        self.inner, self.moments = inner, []

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
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())

    def rate(self, batch: int) -> float:
        """Images a second after the first few steps, by the median step."""
        return batch / statistics.median(np.diff(self.moments[WARM:]))


def ours(
    trainable: LevelTraining, rows: dict[str, np.ndarray], batch: int, updates: int, device: torch.device
) -> float:
    """This project's loop, on packed uint8."""
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

    class Model(BaseAE):  # type: ignore[misc]
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

    class Experiment(VAEXperiment):  # type: ignore[misc]
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


def main() -> None:
    """Run every trainer twice, in turns, and keep the better rate of each."""
    parser = argparse.ArgumentParser(description="training speed against other trainers")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--pytorch-vae", type=Path)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sys.path += [str(folder) for folder in (arguments.peers, arguments.pytorch_vae) if folder]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    raw = noise_images(max(arguments.batches) * arguments.updates, SIDE)
    images = torch.from_numpy(raw).permute(0, 3, 1, 2).float().div(255).contiguous()
    rows_out: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        stored, rows = pyramid_of(raw, Path(folder, "pyramid"))

        def fresh() -> LevelTraining:
            torch.manual_seed(0)
            return baseline_of(stored, Path(folder, "pyramid"), device, **PLAIN)

        for batch in arguments.batches:
            runs: dict[str, Callable[[], float]] = {
                "lapcvae": lambda batch=batch: ours(fresh(), rows, batch, arguments.updates, device),
            }
            if arguments.peers:
                runs["pythae"] = lambda batch=batch: pythae(
                    fresh(), images[: batch * arguments.updates], batch, arguments.updates, device
                )
            if arguments.peers and arguments.pytorch_vae:
                runs["PyTorch-VAE"] = lambda batch=batch: pytorch_vae(fresh(), images, batch, arguments.updates, device)
            rates = {name: max(run() for _ in range(2)) for name, run in runs.items()}
            best = max((rate for name, rate in rates.items() if name != "lapcvae"), default=float("nan"))
            rows_out += [[batch, name, rate, rate / best] for name, rate in rates.items()]
    keep("training-speed", "python -m bench.training_speed", [
        f"The plain VAE at {SIDE} px, fp32, images a second; the ratio is to the faster peer.",
        table(["batch", "trainer", "images/s", "ratio"], rows_out),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
