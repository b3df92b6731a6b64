import pytest
import torch
from torch import nn

from lapcvae.training.optimiser import Optimiser
from tests.training.made import CPU, Small


def test_a_part_that_is_refused_waits_while_the_other_goes_on(small: Small) -> None:
    waits, goes = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimiser = Optimiser({"waits": [waits], "goes": [goes]}, small.training, CPU)
    for update, share in enumerate((1.0, 0.0)):
        before = {name: value.clone() for name, value in optimiser.capture().items()}
        weights = waits.detach().clone(), goes.detach().clone()
        optimiser.backward({"waits": share * waits.sum(), "goes": goes.sum()}, 1.0)
        norms = torch.cat(optimiser.norms())
        assert norms.tolist() == pytest.approx([share * 3**0.5, 3**0.5])
        taken = (norms > 0).float()
        optimiser.step(0.1, optimiser.factors(norms), taken, 1 - taken)
        assert not torch.equal(goes, weights[1])
        assert torch.equal(waits, weights[0]) == (update == 1), "its moments would carry it on"
        after = optimiser.capture()
        changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
        assert ("waits" in changed) == (update == 0)
