import copy

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.paired_traces import estimator_by_site, paired_traces
from tests.lifted import Tied, log_likelihood_model

PRIOR = vbd.priors.GaussianUniform()


class Summed(nn.Module):
    def __init__(self, filled: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(5, 4, padding_idx=1)
        with torch.no_grad():
            self.embedding.weight[1] = filled

    def forward(self, tokens):
        return self.embedding(tokens).sum((1, 2))


@pytest.mark.parametrize("estimator", ["local", "weights", "flipout"])
@pytest.mark.parametrize("filled", [0.0, 2.0])
def test_padding_is_in_every_draw_what_it_is_in_the_network(filled, estimator, device):
    """No gradient of the data reaches its row, so that nothing would hold a prior's noise out of it."""
    lifted = vbd.lift(Summed(filled), vbd.priors.Gaussian(1.0)).to(device)
    guide = vbd.VBDGuide(lifted, init_log_var=0.0)
    tokens = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 1]], device=device)
    model = log_likelihood_model(lifted, tokens)
    trace, _ = paired_traces(model, guide, (), {}, estimator_by_site(estimator))
    padded, *words = trace.nodes["_RETURN"]["value"].tolist()
    assert padded == pytest.approx(3 * 4 * filled, abs=1e-15)
    assert all(abs(word - padded) > 1e-3 for word in words)
    assert (words[0] == words[1]) == (estimator == "weights" or filled > 0)  # what is filled is drawn once


def test_padding_is_trained_where_the_output_layer_is_the_embedding():
    net = Tied()
    net.embedding.padding_idx = 1
    lifted = vbd.lift(net, PRIOR)
    weight = torch.randn(5, 4)
    assert torch.equal(lifted.with_padding("embedding.weight", weight), weight)


def test_point_network_keeps_the_padding(device):
    lifted = vbd.lift(Summed(2.0), PRIOR).to(device)
    guide = vbd.VBDGuide(lifted)
    with torch.no_grad():
        guide.posteriors["q/embedding/weight"].loc.fill_(1.0)
    for threshold in (None, -100.0):
        weight = vbd.point_network(lifted, guide, threshold).embedding.weight
        assert weight[1].eq(2).all()
        assert weight[0].eq(1.0 if threshold is None else 0.0).all()


def test_padding_is_that_of_a_state_that_was_loaded(device):
    filled, fresh = (vbd.lift(Summed(value), PRIOR).to(device) for value in (2.0, 0.0))
    for source, target in ((filled, fresh), (vbd.lift(Summed(0.0), PRIOR), filled)):
        target.load_state_dict(source.state_dict())
        copied = copy.deepcopy(target)
        for network in (target, copied):
            kept = network.with_padding("embedding.weight", torch.ones(5, 4, device=device))
            assert torch.equal(kept[1], source.net.embedding.weight[1].to(device))
            assert kept[0].eq(1).all()
