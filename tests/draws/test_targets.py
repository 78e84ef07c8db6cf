"""Draws of the targets' distribution: many at once are those one by one, or it is done one by one."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

import pyro_vbd as vbd
from models import lenet_5_caffe
from pyro_vbd.draws.targets import TargetDraws, is_of_classes
from pyro_vbd.modes import in_mode
from tests.draws.models import NETS, regression


def pair(net, device="cpu", **kwargs):
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=100).to(device)
    return model, vbd.VBDGuide(model, init_log_var=-2.0, **kwargs)


def several(draws, x, num_samples):
    """How many draws came in each distribution, and what they are."""
    with torch.no_grad(), in_mode(draws._model, False):
        counts, fns = zip(*draws(x, num_samples), strict=True)
    return list(counts), fns


def test_how_many_go_into_one_run():
    model, guide = pair(NETS["dense"]())
    x = torch.randn(4, 5)
    counts, fns = several(TargetDraws(model, guide, None, 40), x, 25)
    assert counts == [1, 10, 10, 4]
    assert [fn.probs.shape[:-2] for fn in fns] == [(), (10,), (10,), (4,)]
    assert several(TargetDraws(model, guide, None, 39), x, 5)[0] == [1] * 5  # not worth finding out
    assert several(TargetDraws(model, guide, None, 3), x, 20)[0] == [1] * 20


def test_a_large_network_takes_few_draws_at_once():
    model, guide = pair(lenet_5_caffe())
    counts, _ = several(TargetDraws(model, guide, None, 1000), torch.rand(1, 1, 28, 28), 12)
    assert counts == [1, 9, 2]


@pytest.mark.parametrize("kind", ["fails", "mixes draws", "own noise"])
def test_a_model_that_does_not_broadcast_runs_one_draw_at_a_time(kind):
    model = regression(kind)
    x = torch.randn(20, 3)
    guide = vbd.VBDGuide(model, x, x.sum(-1), init_log_var=-1.0)
    if kind == "fails":
        guide._faults.clear()  # the guide has found out by itself
    assert several(TargetDraws(model, guide, "y", 1000), x, 10)[0] == [1] * 10


def test_a_hand_written_model_that_broadcasts():
    model = regression("broadcasts")
    x = torch.randn(20, 3)
    guide = vbd.VBDGuide(model, x, x.sum(-1))
    counts, fns = several(TargetDraws(model, guide, "y", 1000), x, 10)
    assert counts == [1, 9]
    assert fns[1].mean.shape == (9, 20)
    assert not is_of_classes(fns[1])


def test_of_several_targets_one_is_named():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), 0.5), obs=y)
            pyro.sample("z", dist.Normal((x * w).sum(-1) + 100.0, 0.5), obs=y)

    x = torch.randn(4, 3)
    guide = vbd.VBDGuide(model, x, x.sum(-1))
    with pytest.raises(ValueError, match=r"draws \['y', 'z'\] beyond the guide's latents"):
        several(TargetDraws(model, guide, None, 1000), x, 2)
    for site, low in (("y", False), ("z", True)):
        _, fns = several(TargetDraws(model, guide, site, 1000), x, 2)
        assert all((fn.mean > 50.0).all() == low for fn in fns)


@pytest.mark.parametrize("wrap", [lambda fn, mask: fn.mask(mask), lambda fn, mask: fn.mask(True).mask(mask)])
def test_targets_are_seen_through_a_mask(wrap):
    def likelihood(outputs):
        return wrap(dist.Categorical(logits=outputs), torch.arange(4) < 2)

    model = vbd.Classifier(NETS["dense"](), vbd.priors.GaussianUniform(), num_data=100, likelihood=likelihood)
    guide, x = vbd.VBDGuide(model, init_log_var=-60.0), torch.randn(4, 5)
    counts, fns = several(TargetDraws(model, guide, None, 1000), x, 10)
    assert counts == [1, 9]
    assert all(is_of_classes(fn) for fn in fns)
    assert torch.allclose(fns[0].probs, vbd.point_network(model, guide)(x).softmax(-1), atol=1e-5)


def test_events_of_targets_are_seen_through_a_mask():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=x * w[..., None, :]).mask(x > 0).to_event(1), obs=y)

    x = torch.randn(4, 3)
    _, fns = several(TargetDraws(model, vbd.VBDGuide(model, x, (x > 0).float()), None, 1000), x, 10)
    assert all(is_of_classes(fn) and fn.probs.shape[-2:] == (4, 3) for fn in fns)


def test_a_variance_that_mixes_draws_is_found_out():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), w.mean().exp()), obs=y)

    x = torch.randn(20, 3)
    guide = vbd.VBDGuide(model, x, x.sum(-1), init_log_var=-1.0)
    assert several(TargetDraws(model, guide, "y", 1000), x, 10)[0] == [1] * 10


def test_the_law_is_that_of_draws_one_by_one():
    model, guide = pair(NETS["dense"]())
    x, count = torch.randn(3, 5), 4000
    with torch.no_grad():
        traces = (poutine.replay(model, trace=poutine.trace(guide).get_trace(x)) for _ in range(count // 4))
        loop = torch.stack([poutine.trace(replayed).get_trace(x).nodes["y"]["fn"].probs for replayed in traces])
        counts, fns = several(TargetDraws(model, guide, None, 3000), x, count)
    assert max(counts) > 100
    together = torch.cat([fn.probs.reshape(-1, 3, 3) for fn in fns])
    for moment in (lambda p: p, lambda p: p.square(), lambda p: p[:, :1] * p[:, 1:]):  # also across data
        a, b = moment(together), moment(loop)
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 4
