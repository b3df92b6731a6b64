"""Trains small things in as many processes as torchrun started, and writes their curves and weights to a folder.

torchrun --nproc-per-node 2 -m tests.training.two_processes FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from lapcvae.training.loop import train
from lapcvae.training.processes import these_processes
from tests.training.made import STYLES, Toy, make_small


def main(folder: Path) -> None:
    """Train each style and the one of two parts; the first process writes STYLE.json and STYLE.safetensors."""
    torch.set_num_threads(1)
    processes = these_processes()
    small = make_small(folder / f"data-{processes.rank}")
    for style in [*STYLES, "two parts"]:
        trainable = Toy(small.arrays(2)) if style == "two parts" else small.trainable(2, **STYLES[style])
        result = train(trainable, small.rows, small.training, 0, processes, style)
        if processes.first:
            (folder / f"{style}.json").write_text(json.dumps(result.curve))
            save_file({k: v.contiguous() for k, v in trainable.state_dict().items()}, folder / f"{style}.safetensors")
    processes.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
