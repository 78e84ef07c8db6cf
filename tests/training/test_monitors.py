import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import classifier


def recorded(callback, state=None):
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    data = [(torch.randn(20, 64), torch.randint(10, (20,)))]
    return vbd.fit(model, guide, data, epochs=1, progress=False, callbacks=[callback]), guide


def test_sparsity():
    run, guide = recorded(vbd.monitors.sparsity(-1.0))
    assert run.history[0]["sparsity"] == vbd.sparsity(guide, -1.0) > 0


def test_alpha_quantiles():
    run, guide = recorded(vbd.monitors.alpha_quantiles((0.0, 0.4, 1.0)))
    for site, value in guide.log_alpha().items():
        low, middle, high = run.history[0]["log_alpha"][site]
        assert (low, high) == (float(value.min()), float(value.max()))
        assert low < middle < high
        ranks = value.flatten().sort().values
        assert middle == float(ranks[round(0.4 * (len(ranks) - 1))])  # the nearest
        assert 0.4 * (len(ranks) - 1) % 1 > 0.5


def test_kl_by_site_leaves_the_random_state_alone():
    x, y = torch.randn(1, 64), torch.zeros(1, dtype=torch.long)
    run, guide = recorded(vbd.monitors.kl_by_site(x, y))
    terms = run.elbo.terms(run.model, guide, x, y)
    assert run.history[0]["kl_by_site"] == pytest.approx({k: v.item() for k, v in terms.kl_by_site.items()}, rel=1e-5)
    state = torch.get_rng_state()
    vbd.monitors.kl_by_site(x, y)(run)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("size", [1, 20])
def test_kl_by_site_leaves_the_statistics_of_batch_norm_alone(size):
    x, y = torch.randn(20, 8), torch.randint(3, (20,))

    def statistics(callbacks):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=20)
        vbd.fit(model, vbd.VBDGuide(model), [(x, y)], epochs=2, progress=False, seed=0, callbacks=callbacks)
        return dict(model.named_buffers())

    modes = []
    monitors = [vbd.monitors.kl_by_site(x[:size], y[:size]), lambda run: modes.append(run.model.training)]
    torch.testing.assert_close(statistics(monitors), statistics([]), rtol=0, atol=0)
    assert modes == [True, True]


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_quantiles_that_are_none_are_refused(probability):
    with pytest.raises(ValueError, match=r"probabilities=.* from 0 to 1"):
        vbd.monitors.alpha_quantiles((0.5, probability))
