import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.placement import common_device, moved, placed


def test_the_device_of_modules_and_structures():
    here, away = nn.BatchNorm1d(2, device="cpu"), nn.BatchNorm1d(2, device="meta")
    assert common_device(here) == torch.device("cpu")
    assert common_device(away, {"loc": torch.zeros(1, device="meta")}, [3, None], len) == torch.device("meta")
    assert common_device() is common_device(here, away) is common_device(len, nn.ReLU()) is None
    here.running_mean = here.running_mean.to("meta")  # a buffer counts
    assert common_device(here) is None


def test_structures_are_placed_and_what_is_no_tensor_stays():
    x = torch.zeros(2, device="cpu")
    assert placed({"x": x}, None)["x"] is x
    found = placed({"x": (x, 3), "word": "y"}, "meta")
    assert found["x"][0].device.type == "meta"
    assert (found["x"][1], found["word"]) == (3, "y")


def test_batches_become_tuples_on_the_device(device):
    x = torch.zeros(2, device="cpu")
    assert [type(batch) for batch in moved([x, [x, x], (x, "word")], None)] == [tuple] * 3
    ((one,), (first, number)) = moved([x, (x, 3)], device)
    assert one.device.type == first.device.type == device.type
    assert number == 3


@pytest.mark.parametrize("regressor", [False, True])
def test_data_of_the_cpu_reach_a_model_wherever_it_is(regressor, device):
    """On a GPU each of these would refuse them."""
    x = torch.randn(6, 3, device="cpu")
    y = torch.randn(6, 2, device="cpu") if regressor else torch.randint(2, (6,), device="cpu")
    net = nn.Linear(3, 2).to(device)
    model = (vbd.Regressor if regressor else vbd.Classifier)(net, vbd.priors.GaussianUniform(), num_data=6)
    guide = vbd.VBDGuide(model)
    model.to(device)
    guide.to(device)
    loader = [(x[:3], y[:3]), (x[3:], y[3:])]
    elsewhere = [(x.to(device), y.to(device))]
    found = vars(vbd.predict(model, guide, x, num_samples=3))
    assert {value.device.type for value in found.values()} == {device.type}
    errors = [point.error for point in vbd.sweep(model, guide, loader, (0.0, 3.0)).points]
    torch.testing.assert_close(errors, [p.error for p in vbd.sweep(model, guide, elsewhere, (0.0, 3.0)).points])
    assert vbd.pareto_k(model, guide, loader, num_samples=100) < 10.0
    vbd.fit(model, guide, loader, epochs=1, validation=loader, progress=False)
    vbd.fit_members([model], [guide], loader, epochs=1, validation=loader, progress=False)
    assert {parameter.device.type for parameter in guide.parameters()} == {device.type}
    loss = nn.functional.mse_loss if regressor else nn.functional.cross_entropy
    assert len(vbd.fine_tune(net, loader, epochs=1, loss=loss, progress=False)) == 1
