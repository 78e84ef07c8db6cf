"""Runs of many draws at once: those one by one, or found out not to be."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

import pyro_vbd as vbd
from pyro_vbd.broadcasting import open_draws_plate
from pyro_vbd.draws.plate import DrawPlate
from pyro_vbd.modes import in_mode
from tests.draws.models import NETS, regression


class _Replayed:
    """A guide that gives known draws: many at once in a plate, else the next one of them."""

    def __init__(self, guide, count):
        self.guide, self.values, self.next = guide, guide.sample(count), 0

    def __call__(self, x):
        together = open_draws_plate() is not None
        for name, value in self.values.items():
            value = value.unsqueeze(1) if together else value[self.next]
            pyro.sample(name, dist.Delta(value, event_dim=value.dim() - 2 * together))
        self.next += not together


def run_once(model, guide, *args):
    draw = poutine.trace(guide).get_trace(*args)
    return draw, poutine.trace(poutine.replay(model, trace=draw)).get_trace(*args)


def targets(traces, count=None):
    fn = traces[1].nodes["y"]["fn"]
    value = fn.probs if isinstance(fn, dist.Categorical) else fn.mean
    return [value if count is not None else value.unsqueeze(0)]


@pytest.mark.parametrize("name", NETS)
def test_many_at_once_are_those_one_by_one(name, device):
    model = vbd.Classifier(NETS[name](), vbd.priors.GaussianUniform(), num_data=100).to(device)
    guide = vbd.VBDGuide(model, init_log_var=-2.0)
    x = torch.randn(4, 5, device=device)
    known = _Replayed(guide, 6)
    with torch.no_grad(), in_mode(model, False):
        first = run_once(model, known, x)
        plate = DrawPlate(model, known, first)
        runs = [first, *(plate.run((x,), None) for _ in range(5))]
        one_by_one = torch.cat([targets(traces)[0] for traces in runs])
        (together,) = targets(plate.run((x,), 6), 6)
    assert together.shape == (6, 4, 3)
    assert torch.allclose(together, one_by_one, atol=1e-6)
    assert one_by_one.std(0).min() > 1e-3


def test_draws_are_used_again_and_another_model_may_take_the_place():
    model = vbd.Classifier(NETS["dense"](), vbd.priors.GaussianUniform(), num_data=100)
    guide = vbd.VBDGuide(model)
    x = torch.randn(4, 5)
    plate = DrawPlate(model, guide, run_once(model, guide, x))
    drawn, first = plate.run((x,), 7)
    again, second = plate.run((x[:2],), 7, drawn, lambda x: model(2 * x))
    assert again is drawn
    (expected,) = targets(plate.run((2 * x[:2],), 7, drawn), 7)
    assert torch.equal(targets((again, second), 7)[0], expected)
    assert not torch.allclose(expected, targets((drawn, first), 7)[0][:, :2])


@pytest.mark.parametrize("kind", ["broadcasts", "fails", "mixes draws", "own noise"])
def test_a_model_that_does_not_broadcast_is_found_out(kind):
    def guide(x):
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    x = torch.randn(20, 3)
    model = regression(kind)
    plate = DrawPlate(model, guide, run_once(model, guide, x))
    assert plate.is_right((x,), targets, 1e-4, 1e-5) == (kind == "broadcasts")
