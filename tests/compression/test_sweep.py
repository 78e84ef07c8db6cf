import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression.sweep import Sweep, SweepPoint
from tests.compression.pruned import error, trained


def test_errors_and_ratios_are_those_of_the_point_networks(device):
    model, guide, _, validation = trained(device)
    found = vbd.sweep(model, guide, validation, (3.0, 1.0))
    assert [point.threshold for point in found.points] == [1.0, 3.0]
    for point in found.points:
        assert point.error == pytest.approx(error(vbd.point_network(model, guide, point.threshold), validation), abs=1e-6)
        assert point.ratio == pytest.approx(1 / (1 - vbd.sparsity(guide, point.threshold)))
    assert found.full_error == pytest.approx(error(vbd.point_network(model, guide), validation), abs=1e-6)
    assert found.points[0].ratio > found.points[1].ratio


def test_gates_may_move_with_the_weights(device):
    model, guide, _, validation = trained(device)
    (together,) = vbd.sweep(model, guide, validation, [2.0], gate_threshold=None).points
    assert together.ratio == pytest.approx(1 / (1 - vbd.sparsity(guide, 2.0, 2.0)))


@pytest.mark.parametrize("space", [torch.linspace, np.linspace])
def test_thresholds_may_be_an_array(device, space):
    model, guide, _, validation = trained(device)
    expected = vbd.sweep(model, guide, validation, [1.0, 2.0, 3.0])
    assert vbd.sweep(model, guide, validation, space(1.0, 3.0, 3)) == expected


def test_picks_the_highest_ratio_within_the_bound():
    found = Sweep((SweepPoint(0.0, 0.05, 90.0), SweepPoint(1.0, 0.021, 50.0), SweepPoint(3.0, 0.02, 20.0)), 0.02)
    assert found.pick().threshold == 3.0
    assert found.pick(0.001).threshold == 1.0
    assert found.pick(1.0).threshold == 0.0
    found = Sweep((SweepPoint(0.0, 0.06, 2.0), SweepPoint(1.0, 0.07, 9.0)), 0.06)
    assert found.pick(0.01).threshold == 1.0  # although 0.06 + 0.01 < 0.07
    with pytest.raises(ValueError, match=r"no threshold keeps the error at 0.05.*allow a larger max_loss"):
        found.pick(-0.01)


def masked_classifier(*args):
    """The first datum does not count."""
    return vbd.Classifier(*args, likelihood=lambda o: dist.Categorical(logits=o).mask(torch.arange(o.shape[-2]) > 0))


@pytest.mark.parametrize(
    ("kind", "outputs", "y", "expected"),
    [
        (vbd.Classifier, [[1.0, 0.0], [0.0, 1.0]], [1, 1], 0.5),
        (lambda *a: vbd.Classifier(*a, ignore_index=-1), [[1.0, 0.0], [0.0, 1.0]], [-1, 1], 0.0),
        (
            lambda *a: vbd.Classifier(*a, multilabel=True, ignore_index=-1),
            [[0.3, -1.0], [-1.0, 1.0]],
            [[-1.0, 1.0], [0.0, -1.0]],
            0.5,
        ),
        (masked_classifier, [[1.0, 0.0], [0.0, 1.0]], [1, 1], 0.0),
        (lambda *a: vbd.Classifier(*a, multilabel=True), [[0.3, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [0.0, 0.0]], 0.25),
        (vbd.Regressor, [[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [0.0, 1.0]], 1.0),
    ],
)
def test_the_error_follows_from_the_targets(kind, outputs, y, expected):
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.eye(2))
        net.bias.zero_()
    model = kind(net, vbd.priors.GaussianUniform(), 2)
    found = vbd.sweep(model, vbd.VBDGuide(model), [(torch.tensor(outputs), torch.tensor(y))], [1000.0])
    assert found.full_error == pytest.approx(expected)


def test_of_equal_ratios_the_lower_error_is_picked():
    found = Sweep((SweepPoint(1.0, 0.02, 50.0), SweepPoint(2.0, 0.01, 50.0), SweepPoint(3.0, 0.02, 50.0)), 0.02)
    assert found.pick().threshold == 2.0


def test_whole_units_at_a_time(device):
    model, guide, _, validation = trained(device)
    kept = vbd.masks(guide, 0.0, per="unit").values()
    (point,) = vbd.sweep(model, guide, validation, [0.0], per="unit").points
    assert point.ratio == pytest.approx(sum(mask.numel() for mask in kept) / sum(float(mask.sum()) for mask in kept))
    assert point.ratio != pytest.approx(1 / (1 - vbd.sparsity(guide, 0.0)))


def test_in_evaluation_mode():
    model = vbd.Classifier(nn.Sequential(nn.Dropout(1.0), nn.Linear(2, 2, bias=False)), vbd.priors.GaussianUniform(), 2)
    guide = vbd.VBDGuide(model)
    with torch.no_grad():
        guide.posteriors["q/1/weight"].loc.copy_(torch.eye(2))
    assert vbd.sweep(model, guide, [(torch.eye(2), torch.arange(2))], [1000.0]).full_error == 0.0
    assert model.training


def test_a_model_by_hand():
    x = torch.randn(20, 3)

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 0.1), obs=y)

    guide = vbd.VBDGuide(model, x, x[:, 0])
    found = vbd.sweep(model, guide, [(x, x[:, 0])], [-1000.0])
    assert math.isinf(found.points[0].ratio)
    assert found.points[0].error == pytest.approx(float(x[:, 0].square().mean()))


def test_bad_input(device):
    model, guide, _, validation = trained(device)
    with pytest.raises(ValueError, match="thresholds is empty"):
        vbd.sweep(model, guide, validation, [])
    with pytest.raises(ValueError, match="gave no batch"):
        vbd.sweep(model, guide, [], [3.0])
    with pytest.raises(ValueError, match="observes 0 sites"):
        vbd.sweep(model, guide, [next(iter(validation))[:1]], [3.0])

    def two(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        for name in ("y", "z"):
            with pyro.plate(f"data of {name}", len(x)):
                pyro.sample(name, dist.Normal(x @ w, 1.0), obs=y)

    x, y = torch.randn(4, 3), torch.randn(4)
    with pytest.raises(ValueError, match="observes 2 sites"):
        vbd.sweep(two, vbd.VBDGuide(two, x, y), [(x, y)], [3.0])
