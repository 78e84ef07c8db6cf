"""Models that no guide of this library can be the posterior of are refused, with what to do."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.poutine.indep_messenger import IndepMessenger

import pyro_vbd as vbd


def test_model_with_nothing_to_infer_is_refused():
    with pytest.raises(ValueError, match="nothing to infer"):
        vbd.VBDGuide(lambda: pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0)))()


@pytest.mark.parametrize(
    "fn",
    [
        lambda: dist.Bernoulli(torch.tensor(0.5)),
        lambda: dist.Categorical(torch.ones(3)),
        lambda: dist.Poisson(torch.tensor(3.0)),
        lambda: dist.Geometric(torch.tensor(0.3)).expand([2]).to_event(1),
        lambda: dist.Multinomial(3, torch.ones(3)),
    ],
)
def test_discrete_latent_is_refused(fn):
    with pytest.raises(ValueError, match="site 'k' is a discrete latent"):
        vbd.VBDGuide(lambda: pyro.sample("k", fn()))()


def test_a_discrete_latent_may_be_enumerated_as_the_error_says():
    """The bound is then that of the mixture which the sum over it makes."""

    @config_enumerate
    def model(y, summed):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            if summed:
                pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(w, 1.0)), obs=y)
            else:
                k = pyro.sample("k", dist.Categorical(torch.ones(2)))
                pyro.sample("y", dist.Normal(w[k], 1.0), obs=y)

    y = torch.randn(10)
    with pytest.raises(ValueError, match=r"poutine.block\(model, hide=\['k'\]\) for the guide, and TraceEnum_ELBO"):
        vbd.VBDGuide(model, y, False)
    guide = vbd.VBDGuide(pyro.poutine.block(model, hide=["k"]), y, False, init_log_var=-1.0)
    pyro.set_rng_seed(0)
    listed, summed = TraceEnum_ELBO(max_plate_nesting=1), Trace_ELBO()
    gaps = torch.tensor([listed.loss(model, guide, y, False) - summed.loss(model, guide, y, True) for _ in range(200)])
    assert abs(gaps.mean() / (gaps.std() / math.sqrt(200))) < 4


def test_unobserved_targets_are_a_discrete_latent():
    with pytest.raises(ValueError, match="pass the data when the guide runs for the first time"):
        vbd.VBDGuide(vbd.Classifier(torch.nn.Linear(3, 2), vbd.priors.GaussianUniform(), 8).forward, torch.randn(8, 3))


@pytest.mark.parametrize(("batch", "shape"), [(4, ()), (4, (3,)), (8, (2, 3))])
def test_weight_inside_the_data_plate_is_refused(batch, shape):
    """In a subsampled plate any latent, in a full one a matrix: the layer called one line too late."""

    def model(x):
        with pyro.plate("data", 8, subsample=x):
            w = pyro.sample("w", dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))
            pyro.sample("y", dist.Normal(w.reshape(len(x), -1).sum(-1), 1.0), obs=x)

    with pytest.raises(ValueError, match="'w' is drawn inside the plate 'data'"):
        vbd.VBDGuide(model, torch.zeros(batch))


def test_a_weight_without_elements_is_refused_by_name():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    net[1].weight = torch.nn.Parameter(torch.empty(0, 2))
    with pytest.raises(ValueError, match=r"site '1\.weight.*' has shape \(0, 2\) and no element to infer: .* where="):
        vbd.VBDGuide(vbd.Classifier(net, vbd.priors.GaussianUniform(), 8))


def test_a_latent_of_each_datum_is_accepted_in_a_full_plate():
    def model(x):
        with pyro.plate("data", 8, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=x)

    guide = vbd.VBDGuide(model, torch.zeros(8))
    assert guide.median()["z"].shape == (8, 2)
    assert math.isfinite(vbd.VBD_ELBO().loss(model, guide, torch.zeros(8)))


def test_a_plate_of_no_known_full_size_is_no_part_of_a_larger_one():
    def model():
        with IndepMessenger("rows", 2, dim=-1):
            pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    assert vbd.VBDGuide(model)()["w"].shape == (2, 3)


def test_records_inside_a_plate_do_not_make_it_a_data_plate():
    def model():
        with pyro.plate("members", 2):
            w = pyro.sample("w", dist.Normal(torch.zeros(3, 4), 1.0).to_event(2))
            pyro.deterministic("norm", w.square().sum((-2, -1)))

    guide = vbd.VBDGuide(model)
    assert guide()["w"].shape == (2, 3, 4)
