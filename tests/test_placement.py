import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.placement import brought, common_device, moved
from pyro_vbd.training.monitors import kl_by_site


class Elsewhere(torch.Tensor):
    """A tensor that says that it lies on another device, until it is moved."""

    device = torch.device("meta")

    def to(self, device):
        return self.as_subclass(torch.Tensor).to(device)

    def __getitem__(self, index):
        return self.as_subclass(torch.Tensor)[index].as_subclass(Elsewhere)


class Linear(nn.Linear):
    """Refuses what has not been moved, as a GPU would."""

    def forward(self, x):
        assert type(x) is torch.Tensor
        return super().forward(x)


def test_the_device_of_modules_and_structures():
    here, away = nn.BatchNorm1d(2, device="cpu"), nn.BatchNorm1d(2, device="meta")
    assert common_device(here) == torch.device("cpu")
    assert common_device(away, {"loc": torch.zeros(1, device="meta")}, [3, None], len) == torch.device("meta")
    assert common_device() is common_device(here, away) is common_device(len, nn.ReLU()) is None
    here.running_mean = here.running_mean.to("meta")  # a buffer counts
    assert common_device(here) is None


def test_structures_are_brought_whole_or_not_at_all():
    x = torch.zeros(2, device="cpu")
    assert brought({"x": x}, None)["x"] is x
    found = brought({"x": (x, 3), "word": "y"}, torch.device("meta"))
    assert found["x"][0].device.type == "meta"
    assert (found["x"][1], found["word"]) == (3, "y")
    mixed = {"x": torch.zeros(2, device="meta"), "lengths": x}  # a packed sequence's lengths have to be on the CPU
    assert brought(mixed, torch.device("meta")) is mixed


def test_batches_become_tuples_on_the_device(device):
    x = torch.zeros(2, device="cpu")
    assert [type(batch) for batch in moved([x, [x, x], (x, "word")])] == [tuple] * 3
    ((one,), (first, number)) = moved([x, (x, 3)], device=device)
    assert one.device.type == first.device.type == device.type
    assert number == 3
    ((one, other),) = moved([(x, torch.zeros(2, device="meta"))], device="meta")  # asked for, all of it moves
    assert one.device.type == other.device.type == "meta"
    ((one,),) = moved([x], nn.Linear(2, 2, device="meta"))
    assert one.device.type == "meta"


@pytest.fixture(params=[False, True], ids=["classes", "values"])
def data(request):
    x = torch.randn(120, 3, device="cpu").as_subclass(Elsewhere)
    y = torch.randn(120, 2, device="cpu") if request.param else torch.randint(2, (120,), device="cpu")
    return x, y.as_subclass(Elsewhere)


@pytest.fixture
def pair(data, device):
    x, y = data
    make = vbd.Regressor if y.is_floating_point() else vbd.Classifier
    model = make(Linear(3, 2), vbd.priors.GaussianUniform(), num_data=len(x)).to(device)
    return model, vbd.VBDGuide(model).to(device)


CALLS = {
    "fit": lambda m, g, x, y: vbd.fit(m, g, [(x, y)], epochs=1, validation=[(x, y)], progress=False),
    "fit_members": lambda m, g, x, y: vbd.fit_members([m], [g], [(x, y)], epochs=1, validation=[(x, y)], progress=False),
    "predict": lambda m, g, x, y: vbd.predict(m, g, x, num_samples=2),
    "predict from a loader": lambda m, g, x, y: vbd.predict(m, g, [(x, y)], num_samples=2),
    "sweep": lambda m, g, x, y: vbd.sweep(m, g, [(x, y)], (0.0, 3.0)),
    "fine_tune": lambda m, g, x, y: vbd.fine_tune(
        vbd.point_network(m, g), [(x, y)], epochs=1, progress=False,
        loss=nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy,
    ),
    "negative_log_likelihood": lambda m, g, x, y: vbd.negative_log_likelihood(m, g, [(x, y)]),
    "pareto_k": lambda m, g, x, y: vbd.pareto_k(m, g, x, y, num_samples=100),
    "to_arviz": lambda m, g, x, y: vbd.to_arviz(m, g, x, y, num_samples=2, groups=["log_likelihood"]),
    "kl_by_site": lambda m, g, x, y: kl_by_site(x, y)(vbd.Fit(m, g, vbd.VBD_ELBO(), {}, None)),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_data_that_lie_elsewhere_reach_the_model(call, pair, data):
    CALLS[call](*pair, *data)
