import pyro
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.start import check_arguments, find_parameters


def test_numbers_of_epochs_have_to_make_sense():
    check_arguments(1, None, None)
    check_arguments(1, 1, [()])
    for arguments, message in (
        ((0, None, None), "epochs=0"),
        ((1, 2, None), "patience=2 needs"),
        ((1, 0, [()]), "patience=0"),
    ):
        with pytest.raises(ValueError, match=message):
            check_arguments(*arguments)


def test_parameters_of_modules_and_of_statements_are_found_and_nothing_moves():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model)
    model.network.net[1].bias.requires_grad_(False)

    def shifted(x, y):
        pyro.factor("pull", pyro.param("shift", torch.zeros(())))
        return model(x, y)

    guide = vbd.VBDGuide(shifted)
    batch = torch.randn(10, 3), torch.zeros(10, dtype=torch.long)
    random = torch.get_rng_state()
    found = find_parameters(shifted, guide, vbd.VBD_ELBO(), [batch], None, Processes())
    assert torch.equal(torch.get_rng_state(), random)
    assert {name for name in found if name.startswith("guide.")} == {
        f"guide.{name}" for name, _ in guide.named_parameters()
    }
    assert "shift" in found
    assert any(value is model.network.net[1].weight for value in found.values())
    assert all(value.requires_grad for value in found.values())
    assert int(model.network.net[1].num_batches_tracked) == 0
    with pytest.raises(ValueError, match="no batch"):
        find_parameters(model, guide, vbd.VBD_ELBO(), [], None, Processes())
