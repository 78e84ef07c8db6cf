"""Which weights share one gamma."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.priors import GaussianUniform, Horseshoe, Laplace
from pyro_vbd.priors.sharing import SHARING, is_input_first, shared_shape

MATRIX, FILTERS = torch.Size((4, 3)), torch.Size((4, 3, 5, 2))


@pytest.mark.parametrize(
    ("per", "matrix", "filters"),
    [
        ("weight", (4, 3), (4, 3, 5, 2)),
        ("output", (4, 1), (4, 1, 1, 1)),
        ("filter", (4, 1), (4, 1, 1, 1)),
        ("input", (1, 3), (1, 3, 1, 1)),
        ("kernel", (4, 3), (4, 3, 1, 1)),
        ("layer", (1, 1), (1, 1, 1, 1)),
    ],
)
def test_shapes(per, matrix, filters):
    assert shared_shape(per, MATRIX) == matrix
    assert shared_shape(per, FILTERS) == filters
    turned = {"output": (1, 3), "filter": (1, 3), "input": (4, 1)}.get(per, matrix)
    assert shared_shape(per, MATRIX, swapped=True) == turned
    assert set(SHARING) == {"weight", "output", "filter", "input", "kernel", "layer"}


def test_vectors_and_scalars():
    vector = torch.Size((5,))
    assert shared_shape("output", vector) == (5,)
    assert shared_shape("layer", vector) == (1,)
    assert shared_shape("layer", torch.Size()) == ()
    assert shared_shape("weight", torch.Size()) == ()
    for per in ("input", "kernel"):
        with pytest.raises(ValueError, match=rf"per='{per}' asks for dimension 1 of a weight of shape \(5,\)"):
            shared_shape(per, vector)


@pytest.mark.parametrize("per", ["", "unit", "Output", None])
def test_another_word_is_refused(per):
    with pytest.raises(ValueError, match="is unknown: use one of weight, output, filter, input, kernel, layer"):
        shared_shape(per, MATRIX)


def test_which_modules_have_their_input_first():
    first = [nn.ConvTranspose1d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), nn.ConvTranspose3d(1, 1, 1)]
    first += [nn.Embedding(2, 2), nn.EmbeddingBag(2, 2)]
    assert all(is_input_first(module) for module in first)
    last = [
        nn.Linear(1, 1),
        nn.Conv1d(1, 1, 1),
        nn.Conv2d(1, 1, 1),
        nn.Conv3d(1, 1, 1),
        nn.Bilinear(1, 1, 1),
        nn.GRUCell(1, 1),
    ]
    assert not any(is_input_first(module) for module in last)


@pytest.mark.parametrize(
    "module", [nn.Linear(3, 2), nn.Conv2d(3, 2, 2), nn.ConvTranspose2d(3, 2, 2), nn.Embedding(3, 2)], ids=str
)
def test_the_group_of_an_input_unit_is_what_its_removal_removes(module):
    """With the weights of one input group at 0, that input has no effect; with one output group, that output is 0."""
    for per, size in (("input", 3), ("output", 2)):
        network = vbd.lift(module, GaussianUniform(per=per))
        (site,) = [name for name in network.priors if name == "weight"]
        shape = vbd.VBDGuide(network).median()[f"{site}_gamma"].shape
        weight = module.weight.detach().clone()
        mask = torch.ones(size)
        mask[1] = 0.0
        (dim,) = [d for d, length in enumerate(shape) if length == size]
        weight = weight * mask.reshape([size if d == dim else 1 for d in range(weight.dim())])
        if isinstance(module, nn.Embedding):
            output = torch.func.functional_call(module, {"weight": weight}, (torch.arange(3),))
            assert (output[1] == 0).all() if per == "input" else (output[:, 1] == 0).all()
            continue
        x = torch.randn(1, 3, *([4, 4] if weight.dim() > 2 else []))
        state = {"weight": weight, "bias": torch.zeros(2)}
        output = torch.func.functional_call(module, state, (x,))
        moved = x.clone()
        moved[:, 1] += 1.0
        if per == "input":
            assert_close(torch.func.functional_call(module, state, (moved,)), output)
        else:
            assert (output[:, 1] == 0).all()
        assert (output != 0).any()


def test_a_mapping_of_priors_is_turned_where_it_must():
    net = nn.Sequential(nn.ConvTranspose2d(3, 2, 1), nn.Flatten(), nn.Linear(2, 4))
    network = vbd.lift(net, {"0.*": Laplace(per="input"), "*": Horseshoe(per="input")})
    median = vbd.VBDGuide(network).median()
    assert median["0.weight_gamma"].shape == (3, 1, 1, 1)
    assert median["2.weight_gamma"].shape == (1, 2)


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
@pytest.mark.parametrize(("module", "shape"), [(nn.ConvTranspose2d(3, 2, 4), (3, 1, 1, 1)), (nn.Linear(3, 2), (1, 3))])
def test_a_weight_under_a_norm_is_turned_as_it_is_without_one(module, shape, norm):
    network = vbd.lift(norm(copy.deepcopy(module)), GaussianUniform(per="input"))
    (weight,) = network.priors
    assert vbd.VBDGuide(network).median()[f"{weight}_gamma"].shape == shape


def test_the_users_prior_is_left_as_it_was():
    prior = Laplace(per="input")
    vbd.lift(nn.Embedding(3, 2), prior)
    median = vbd.VBDGuide(vbd.lift(nn.Linear(3, 2), prior)).median()
    assert median["weight_gamma"].shape == (1, 3)


def test_units_die_whole(device):
    """Inputs without an effect: with one gamma for each input unit their weights leave together, and no other."""
    x = torch.randn(200, 6)
    y = x[:, :2] @ torch.randn(2, 5) + 0.1 * torch.randn(200, 5)
    model = vbd.Regressor(nn.Linear(6, 5), GaussianUniform(per="input"), num_data=200)
    guide = vbd.VBDGuide(model)
    vbd.fit(model, guide, [(x, y)], epochs=400, lr=0.03, progress=False)
    gamma = guide.median()["weight_gamma"].flatten()
    assert gamma[2:].max() < 0.02 * gamma[:2].min()
    removed = guide.log_alpha()["weight"] > 0
    assert removed[:, 2:].float().mean() > 0.5
    assert not removed[:, :2].any()


@pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
def test_vectorised_particles_have_the_loops_expectation(scale_posterior, float64):
    prior = Horseshoe(per="output", global_scale=dist.HalfCauchy(1.0))
    model = vbd.Regressor(nn.Linear(3, 2), prior, num_data=8, learn_noise=False)
    guide = vbd.VBDGuide(model, scale_posterior=scale_posterior, init_log_var=-2.0)
    x, y = torch.randn(8, 3), torch.randn(8, 2)
    one_by_one = torch.tensor([vbd.VBD_ELBO().loss(model, guide, x, y) for _ in range(150)])
    at_once = vbd.VBD_ELBO(num_particles=50, vectorize_particles=True)
    together = torch.tensor([at_once.loss(model, guide, x, y) for _ in range(15)])
    error = (one_by_one.var() / len(one_by_one) + together.var() / len(together)).sqrt()
    assert abs((one_by_one.mean() - together.mean()) / error) < 4


def test_parallel_predictive_has_the_loops_moments(float64):
    prior = Laplace(per="input", global_scale=dist.HalfNormal(1.0))
    model = vbd.Regressor(nn.Linear(3, 2), prior, num_data=8)
    guide = vbd.VBDGuide(model, scale_posterior="exact", init_log_var=-1.0)
    x = torch.randn(4, 3)
    draws = {
        parallel: pyro.infer.Predictive(model, guide=guide, num_samples=200, parallel=parallel)(x)["y"]
        for parallel in (True, False)
    }
    for power in (1, 2):
        means, errors = zip(*((d.pow(power).mean(0), d.pow(power).var(0) / 200) for d in draws.values()), strict=True)
        assert ((means[0] - means[1]) / (errors[0] + errors[1]).sqrt()).abs().max() < 4.5  # the largest of eight
