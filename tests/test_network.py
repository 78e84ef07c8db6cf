import copy
import logging
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.estimators.local_reparam import LocalReparam
from tests.lifted import Tied, ready

PRIOR = vbd.priors.GaussianUniform()
N = 8


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(8, 3)
    )  # fmt: skip


# --- the user's network ----------------------------------------------------------------------------------------------


def test_network_is_left_as_it_was():
    net = conv_net()
    net[0].weight.requires_grad_(False)
    net[5].bias.grad = torch.ones(3)
    state, modules = copy.deepcopy(net.state_dict()), dict(net.named_modules())
    parameters = {name: (id(p), p.requires_grad, p.grad) for name, p in net.named_parameters()}
    model = vbd.Classifier(net, PRIOR, N)
    elbo = vbd.VBD_ELBO()(model, vbd.VBDGuide(model))
    optimizer = torch.optim.SGD(elbo.parameters(), lr=0.1)
    for _ in range(2):
        elbo(torch.randn(N, 1, 4, 4), torch.randint(3, (N,))).backward()
        optimizer.step()
    model.eval()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert {name: (id(p), p.requires_grad, p.grad) for name, p in net.named_parameters()} == parameters
    assert dict(net.named_modules()) == modules
    assert all(module.training for module in net.modules())
    assert "forward" not in vars(net)


def test_present_weights_are_the_initial_means():
    net = conv_net()
    guide = vbd.VBDGuide(vbd.Classifier(net, PRIOR, N))
    medians = guide.median()
    for name in ("0.weight", "5.weight"):
        assert torch.equal(medians[name], net.get_parameter(name))


def test_other_parameters_are_trained_and_bayesian_ones_are_not_parameters_of_the_optimizer():
    model = vbd.Classifier(conv_net(), PRIOR, N)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "network.net.0.bias", "network.net.1.weight", "network.net.1.bias", "network.net.5.bias"
    }  # fmt: skip
    vbd.VBD_ELBO()(model, vbd.VBDGuide(model))(torch.randn(N, 1, 4, 4), torch.randint(3, (N,))).backward()
    for p in model.parameters():
        assert (p.grad is not None) == p.requires_grad


def test_output_is_that_of_the_network_at_the_drawn_weights():
    net, x = conv_net().eval(), torch.randn(N, 1, 4, 4)
    lifted = vbd.lift(net, PRIOR)
    trace = poutine.trace(lifted).get_trace(x)
    weights = {name: trace.nodes[name]["value"] for name in ("0.weight", "5.weight")}
    expected = torch.func.functional_call(net, weights, (x,))
    assert torch.equal(trace.nodes["_RETURN"]["value"], expected)


def test_keyword_inputs():
    lifted = vbd.lift(nn.Bilinear(2, 3, 1), PRIOR)
    assert lifted(torch.randn(4, 2), input2=torch.randn(4, 3)).shape == (4, 1)


def test_tied_weights_stay_tied_and_are_one_site():
    net = Tied()
    lifted = vbd.lift(net, PRIOR)
    assert list(lifted.priors) == ["embedding.weight"]
    assert lifted.net.output.weight is lifted.net.embedding.weight
    tokens = torch.tensor([[0, 1, 4]])
    trace = poutine.trace(lifted).get_trace(tokens)
    weight = trace.nodes["embedding.weight"]["value"]
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"], weight[tokens] @ weight.T)
    guide = ready(vbd.VBDGuide(lambda: lifted(tokens)))
    assert len(list(guide.parameters())) == 2


def test_a_module_that_stands_at_two_places_is_one_site_and_is_given_back_its_weight():
    layer = nn.Linear(3, 3)
    lifted = vbd.lift(nn.Sequential(layer, nn.Tanh(), layer), PRIOR)
    x = torch.randn(4, 3)
    for _ in range(2):
        trace = poutine.trace(lifted).get_trace(x)
        weight, bias = trace.nodes["0.weight"]["value"], lifted.net[0].bias
        torch.testing.assert_close(trace.nodes["_RETURN"]["value"], torch.tanh(x @ weight.T + bias) @ weight.T + bias)
        assert isinstance(lifted.net[2].weight, nn.Parameter)


def test_two_networks_in_one_model_by_name():
    first, second = vbd.lift(nn.Linear(3, 2), PRIOR, name="first"), vbd.lift(nn.Linear(2, 1), PRIOR, name="second")
    assert first.site("weight") == "first.weight"
    trace = poutine.trace(lambda x: second(first(x))).get_trace(torch.randn(4, 3))
    assert set(trace.nodes) >= {"first.weight", "first.weight_gamma", "second.weight", "second.weight_gamma"}
    both = nn.Sequential(*(vbd.lift(nn.Linear(3, 3), PRIOR) for _ in range(2)))
    with pytest.raises(RuntimeError, match="Multiple sample sites named 'weight"):
        poutine.trace(both).get_trace(torch.randn(4, 3))


def test_several_priors_by_pattern():
    lifted = vbd.lift(conv_net(), {"0.*": vbd.priors.Gaussian(), "5": PRIOR})
    trace = poutine.trace(lifted).get_trace(torch.randn(N, 1, 4, 4))
    assert "5.weight_gamma" in trace.nodes
    assert "0.weight_gamma" not in trace.nodes


@pytest.mark.parametrize("where", ["5", nn.Linear, lambda name, parameter, owner: name == "5.weight"])
def test_where(where):
    assert list(vbd.lift(conv_net(), PRIOR, where=where).priors) == ["5.weight"]


def test_prototype_states_the_priors_without_running_the_network():
    class Broken(nn.Linear):
        def forward(self, x):
            raise AssertionError

    trace = poutine.trace(vbd.lift(Broken(3, 2), PRIOR).prototype).get_trace()
    assert {"weight", "weight_gamma"} <= set(trace.nodes)


# --- buffers, modes, dtypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_of_the_copy_move_in_train_alone(training):
    net = conv_net()
    model = vbd.Classifier(net, PRIOR, N).train(training)
    guide = vbd.VBDGuide(model)
    before = copy.deepcopy(dict(model.network.net.named_buffers()))
    vbd.VBD_ELBO().loss(model, guide, torch.randn(N, 1, 4, 4), torch.randint(3, (N,)))
    for name, buffer in model.network.net.named_buffers():
        assert torch.equal(buffer, before[name]) == (not training), name
    assert net[1].num_batches_tracked == 0


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.float64), lambda m: m.double()])
def test_dtype(convert):
    model = convert(vbd.Regressor(nn.Linear(3, 1), PRIOR, N))
    guide = vbd.VBDGuide(model)
    assert all(p.dtype == torch.float64 for p in [*model.parameters(), *guide.parameters()])
    x, y = torch.randn(N, 3, dtype=torch.float64), torch.randn(N, dtype=torch.float64)
    assert vbd.VBD_ELBO().terms(model, guide, x, y).log_likelihood.dtype == torch.float64
    assert model(x).dtype == torch.float64


def test_noise_of_a_regressor_has_the_dtype_of_its_network():
    assert vbd.Regressor(nn.Linear(3, 1).double(), PRIOR, N).gaussian.scale.dtype == torch.float64


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_noise_of_a_regressor_is_real_beside_complex_parameters():
    net = nn.Sequential(nn.Linear(3, 1))
    net.register_parameter("phases", nn.Parameter(torch.ones(2, dtype=torch.complex64)))
    assert vbd.Regressor(net, PRIOR, N).gaussian.scale.dtype == torch.float32


def test_copies_and_state_dicts():
    model = vbd.Classifier(conv_net(), PRIOR, N)
    other = vbd.Classifier(conv_net(), PRIOR, N)
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(copy.deepcopy(model).parameters(), other.parameters(), strict=True))


# --- plates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [nullcontext, LocalReparam])
def test_call_inside_a_data_plate_is_refused(context):
    lifted, x = vbd.lift(nn.Linear(3, 1), PRIOR), torch.randn(N, 3)
    with context(), pyro.plate("rows", N), pytest.raises(ValueError, match=r"inside the plate 'rows'.* before the plate"):
        lifted(x)


# --- messages --------------------------------------------------------------------------------------------------------


def test_one_line_says_what_is_bayesian(caplog):
    with caplog.at_level(logging.INFO, logger="pyro_vbd"):
        lifted = vbd.lift(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), PRIOR)
        lifted(torch.randn(4, 3))
    (record,) = [r for r in caplog.records if r.name == "pyro_vbd.network"]
    assert record.getMessage() == "Sequential: Bayesian ['0.weight']; not Bayesian ['0.bias', '1.weight', '1.bias']"


@pytest.mark.parametrize(
    ("prior", "where", "error"),
    [("normal", None, TypeError), (PRIOR, 3, TypeError), (PRIOR, "missing", ValueError), ({"x*": PRIOR}, None, ValueError)],
)
def test_errors_name_the_culprit(prior, where, error):
    with pytest.raises(error, match=r"normal|where=3|'missing'|selects no weight"):
        vbd.lift(nn.Linear(3, 2), prior, where=where)


def test_integer_tensor_is_refused():
    net = nn.Linear(3, 2)
    net.table = nn.Parameter(torch.ones(2, 2, dtype=torch.int32), requires_grad=False)
    with pytest.raises(ValueError, match=r"'table' holds torch.int32"):
        vbd.lift(net, PRIOR, where=["weight", "table"])


def test_own_model_under_lifted_network():
    """The docstring's example: a Poisson regression."""
    encoder, x = vbd.lift(nn.Linear(3, 1), PRIOR), torch.randn(N, 3)

    def model(x, y=None):
        rate = encoder(x).exp().squeeze(-1)
        with pyro.plate("data", 2 * N, subsample=x):
            return pyro.sample("y", dist.Poisson(rate), obs=y)

    y = torch.poisson(torch.ones(N))
    guide = vbd.VBDGuide(model, x, y, init_log_var=-60.0)
    value = vbd.VBD_ELBO().terms(model, guide, x, y).log_likelihood
    expected = 2 * dist.Poisson(encoder.net(x).exp().squeeze(-1)).log_prob(y).sum()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("estimator", ["auto", "weights"])
def test_a_sparse_embedding_is_trained_as_any_other(kind, estimator, device):
    tokens, y = torch.tensor([[0, 1], [2, 1]], device=device), torch.ones(2, device=device)
    grads = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding = kind(4, 3, sparse=sparse)
        net = nn.Sequential(embedding, nn.Flatten(), nn.Linear(6 if kind is nn.Embedding else 3, 1)).to(device)
        model = vbd.Regressor(net, PRIOR, 2, where="0.*")
        guide = vbd.VBDGuide(model)
        torch.manual_seed(1)
        vbd.VBD_ELBO(estimator=estimator)(model, guide)(tokens, y).backward()
        grads.append(guide.learned["0.weight"].loc.grad)
        assert embedding.sparse == sparse  # the network itself is as it was
    assert torch.equal(*grads)


def test_gradients_by_torch_func_are_those_of_autograd():
    model = vbd.Regressor(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), PRIOR, N)
    loss, x, y = vbd.VBD_ELBO()(model, vbd.VBDGuide(model)), torch.randn(N, 3), torch.randn(N)
    pyro.set_rng_seed(0)
    loss(x, y).backward()
    parameters = dict(loss.named_parameters())
    pyro.set_rng_seed(0)
    found = torch.func.grad(lambda p: torch.func.functional_call(loss, p, (x, y)))(parameters)
    for name, parameter in parameters.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, msg=name)


def test_a_learned_hyperparameter_has_the_dtype_of_its_weight():
    lifted = vbd.lift(nn.Linear(3, 2).double(), vbd.priors.Laplace(vbd.priors.Learned(0.5)))
    assert [p.dtype for p in lifted.log_hyperparameters.values()] == [torch.float64]


def test_inputs_are_noted_once_and_without_their_numbers():
    lifted = vbd.lift(nn.Linear(3, 2), PRIOR)
    for count in (4, 7):
        lifted(torch.randn(count, 3))
    ((seen,), _) = lifted.inputs_seen
    assert seen.shape == (4, 3)
    assert seen.device.type == "meta"
