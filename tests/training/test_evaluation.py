import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F

import pyro_vbd as vbd
from tests.digits import classifier


def test_is_the_mean_loss_of_the_mean_network():
    model = classifier(1000)  # a plate of 1000 must not scale it
    guide = vbd.VBDGuide(model)
    x, y = torch.randn(30, 64), torch.randint(10, (30,))
    found = vbd.negative_log_likelihood(model, guide, vbd.Batches(x, y, batch_size=7))
    assert found == pytest.approx(F.cross_entropy(vbd.point_network(model, guide)(x), y).item(), rel=1e-5)


def test_hand_written_model_and_no_data():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 100, subsample=x):
            pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)

    x = torch.randn(4, 3)
    guide = vbd.VBDGuide(model, x, x.sum(-1))
    expected = -dist.Normal(x @ guide.median()["w"], 0.5).log_prob(x.sum(-1)).mean()
    assert vbd.negative_log_likelihood(model, guide, [(x, x.sum(-1))]) == pytest.approx(expected.item(), rel=1e-5)
    for data in ([], [(x,)]):
        with pytest.raises(ValueError, match="no batch with a target that counts"):
            vbd.negative_log_likelihood(model, guide, data)


def test_the_model_runs_in_evaluation_mode_and_gets_its_own_back():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 30).train()
    guide = vbd.VBDGuide(model)
    data = [(torch.randn(30, 3), torch.randint(2, (30,)))]
    assert len({vbd.negative_log_likelihood(model, guide, data) for _ in range(3)}) == 1
    assert model.training
    assert model.network.net[1].training


def test_no_handler_around_it_sees_its_sites():
    model = classifier(30)
    guide = vbd.VBDGuide(model)
    with pyro.poutine.trace() as seen:
        vbd.negative_log_likelihood(model, guide, [(torch.randn(3, 64), torch.zeros(3, dtype=torch.long))])
    assert not seen.trace.nodes


def test_data_that_count_for_nothing_in_training_do_not_here():
    x, y = torch.randn(6, 3), torch.tensor([0, 1, -1, 1, -1, -1])
    kept, prior = y >= 0, vbd.priors.GaussianUniform()
    model = vbd.Classifier(torch.nn.Linear(3, 2), prior, 6, ignore_index=-1)
    guide = vbd.VBDGuide(model)
    some = vbd.negative_log_likelihood(model, guide, [(x[kept], y[kept])])
    assert vbd.negative_log_likelihood(model, guide, [(x, y)]) == pytest.approx(some)

    def first_half(x, y):
        with pyro.poutine.mask(mask=torch.arange(len(x)) < 3):
            return model(x, y)

    some = vbd.negative_log_likelihood(model, guide, [(x[:2], y[:2])])
    assert vbd.negative_log_likelihood(first_half, guide, [(x, y)]) == pytest.approx(some)

    plain = vbd.Classifier(torch.nn.Linear(3, 2), prior, 6)
    guide = vbd.VBDGuide(plain)

    def under_a_mask(x, y):
        with pyro.poutine.mask(mask=kept):
            return plain(x, y)

    some = vbd.negative_log_likelihood(plain, guide, [(x[kept], y[kept])])
    assert vbd.negative_log_likelihood(under_a_mask, guide, [(x, y.clamp_min(0))]) == pytest.approx(some)


def test_a_datum_counts_if_one_of_its_targets_does():
    x, y = torch.randn(3, 4), torch.tensor([[0, -1, 1], [1, 1, 0], [-1, -1, -1]])
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Unflatten(1, (2, 3)))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 3, ignore_index=-1)
    guide = vbd.VBDGuide(model)
    some = vbd.negative_log_likelihood(model, guide, [(x[:2], y[:2])])
    assert vbd.negative_log_likelihood(model, guide, [(x, y)]) == pytest.approx(some)
