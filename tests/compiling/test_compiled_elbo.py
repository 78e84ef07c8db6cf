"""The compiled loss against the eager one under the same noise; and where it must not be used."""

import copy
import inspect
import io
import pickle
import random
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import models
import pyro_vbd as vbd
from pyro_vbd import priors
from pyro_vbd.compiling import compiled_elbo

GU = priors.GaussianUniform()


class Counting(nn.Module):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(5, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x)


class Acting(nn.Module):
    """Does something to the outputs of a linear map."""

    def __init__(self, act):
        super().__init__()
        self.linear, self.act = nn.Linear(5, 3), act

    def forward(self, x):
        return self.act(self, self.linear(x))


class Last(nn.Module):
    """The last step of a recurrent layer."""

    def __init__(self, layer, size=4):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(size, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])


def mlp(dtype=torch.float32):
    return nn.Sequential(nn.Linear(5, 4, dtype=dtype), nn.ReLU(), nn.Linear(4, 3, dtype=dtype))


def batch(size=6, dtype=torch.float32):
    return torch.randn(size, 5, dtype=dtype), torch.arange(size) % 3


def loss_of(net, prior=GU, elbo=None, **guide):
    model = vbd.Classifier(net, prior, num_data=100)
    return (elbo or vbd.VBD_ELBO())(model, vbd.VBDGuide(model, **guide))


def leaves(loss):
    stated = {f"store.{name}": leaf for name, leaf in pyro.get_param_store().named_parameters()}
    return {**dict(loss.named_parameters()), **stated}


def numbers(loss, *data, seed=0):
    """The loss, its gradients and the buffers behind it, under one noise."""
    pyro.set_rng_seed(seed)
    value = loss(*data)
    value.backward()
    gradients = {name: leaf.grad.clone() for name, leaf in leaves(loss).items() if leaf.grad is not None}
    for leaf in leaves(loss).values():
        leaf.grad = None
    return value.detach().clone(), gradients


def graphs(loss):
    return len(loss._steps)


def check(eager, *data, compiled=None, tolerance=None):
    """Both give the same at two seeds; and leave buffers and random state alike."""
    compiled = compiled or vbd.compile(eager)
    with torch.no_grad():
        eager(*data)  # in its first run an ELBO may look how deep the plates are
    tolerance = tolerance or {"rtol": 1e-4, "atol": 1e-4}
    for seed in (1, 2):
        before = {name: value.clone() for name, value in eager.named_buffers()}
        theirs = numbers(eager, *data, seed=seed)
        states = torch.get_rng_state(), {name: value.clone() for name, value in eager.named_buffers()}
        with torch.no_grad():
            for name, value in eager.named_buffers():
                value.copy_(before[name])
        ours = numbers(compiled, *data, seed=seed)
        assert_close(ours, theirs, **tolerance)
        assert_close(dict(eager.named_buffers()), states[1])
        if data[0].device.type == "cpu":
            assert torch.equal(torch.get_rng_state(), states[0])
    assert graphs(compiled)
    return compiled


# --- the same numbers -----------------------------------------------------------------------------------------------------

FAMILIES = {
    name: value
    for name, value in vars(priors).items()
    if inspect.isclass(value) and issubclass(value, priors.Prior) and not inspect.isabstract(value)
}
PRIORS = {
    **{name: family for name, family in FAMILIES.items() if name != "ScaleMixture"},
    "ScaleMixture": lambda: priors.ScaleMixture(dist.LogNormal(0.0, 1.0), on="scale"),
    "learned and latent": lambda: priors.Horseshoe(
        priors.Learned(0.5), per="input", global_scale=dist.HalfCauchy(torch.tensor(1.0))
    ),
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", PRIORS)
def test_every_prior(name):
    check(loss_of(nn.Linear(5, 3), PRIORS[name]()), *batch())


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("scale_posterior", ["lognormal", "exact"])
@pytest.mark.parametrize("prior", [priors.Horseshoe(), priors.Jeffreys()], ids=repr)
def test_densities_of_the_scale(prior, scale_posterior):
    check(loss_of(nn.Linear(5, 3), prior, scale_posterior=scale_posterior), *batch())


@pytest.mark.usefixtures("traced")
def test_the_exact_posterior_of_many_scales():
    net = nn.Sequential(nn.Linear(5, 500), nn.Tanh(), nn.Linear(500, 3))  # 2,500 weights, and 1,500
    check(loss_of(net, priors.Horseshoe(), scale_posterior="exact"), *batch())


NETWORKS = {
    "mlp": (lambda: models.mlp(784, (6,), 10), (1, 28, 28)),
    "lenet-300-100": (models.lenet_300_100, (1, 28, 28)),
    "lenet-500-300": (models.lenet_500_300, (1, 28, 28)),
    "lenet-5": (models.lenet_5_caffe, (1, 28, 28)),
    "convnet": (lambda: models.convnet(0.1), (3, 32, 32)),
    "resnet": (lambda: models.resnet(width=2), (3, 16, 16)),
}


def test_every_network_is_here():
    assert len(NETWORKS) == len(models.__all__)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name):
    make, shape = NETWORKS[name]
    check(loss_of(make()), torch.randn(4, *shape), torch.arange(4))


LAYERS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
    "frozen batch norm": lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4).eval(), nn.Linear(4, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)),
    "gates": lambda: vbd.add_gates(mlp()),
    "LSTM": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), Last(nn.LSTM(5, 4, batch_first=True))),
    "GRU": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), Last(nn.GRU(5, 4, batch_first=True))),
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.TransformerEncoderLayer(5, 1, 4, dropout=0.1, batch_first=True),
        nn.Flatten(),
        nn.Linear(5, 3),
    ),
    "tied": lambda: tied(nn.Linear(5, 5)),
}


def tied(layer):
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(5, 3))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    check(loss_of(LAYERS[name]()), *batch())


ELBOS = {
    "weights": {"estimator": "weights"},
    "flipout": {"estimator": "flipout"},
    "mixed": {"estimator": {"0.*": "weights", "2.*": "flipout"}},
    "particles": {"num_particles": 2},
    "vectorised": {"num_particles": 2, "vectorize_particles": True},
    "constant": {"hyperprior_constant": True},
    "site weights": {"site_weights": {"0.*": 3.0}, "kl_weight": 0.5},
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", ELBOS)
def test_objectives(name):
    check(loss_of(mlp(), elbo=vbd.VBD_ELBO(**ELBOS[name])), *batch())


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("alpha", ["unit", "layer", 0.3])
def test_shared_alphas(alpha):
    check(loss_of(mlp(), alpha=alpha), *batch())


@pytest.mark.usefixtures("traced")
def test_double_precision():
    exact = {"rtol": 1e-9, "atol": 1e-9}
    check(loss_of(mlp(torch.float64), priors.Horseshoe()), *batch(dtype=torch.float64), tolerance=exact)


@pytest.mark.usefixtures("traced")
def test_regression_with_learned_noise():
    model = vbd.Regressor(nn.Linear(5, 1), GU, num_data=100)
    x, _ = batch()
    check(vbd.VBD_ELBO()(model, vbd.VBDGuide(model)), x, x[:, :1])


def hand_written(x, y=None):
    rate = pyro.param("rate", torch.tensor(0.7), constraint=dist.constraints.positive)
    gamma = pyro.sample("gamma", dist.InverseGamma(2.0, rate).expand([5]).to_event(1))
    w = pyro.sample("w", dist.Normal(torch.zeros(5), gamma.sqrt()).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", 100, subsample=x) as rows:
        pyro.sample("y", dist.Normal(rows @ w, noise), obs=y)


@pytest.mark.usefixtures("traced")
def test_a_hand_written_model():
    x, _ = batch()
    eager = vbd.VBD_ELBO()(hand_written, vbd.VBDGuide(hand_written, x, x[:, 0]))
    assert "store.rate" in numbers(check(eager, x, x[:, 0]), x, x[:, 0])[1]


def test_compiled_by_inductor():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 3))
    check(loss_of(net, priors.Horseshoe(), elbo=vbd.VBD_ELBO(0.5)), *batch())


# --- what enters a graph, and what makes another one ----------------------------------------------------------------------


@pytest.mark.usefixtures("traced")
def test_noise_is_fresh_at_each_call():
    compiled, data = vbd.compile(loss_of(mlp())), batch()
    assert len({compiled(*data).item() for _ in range(5)}) == 5


@pytest.mark.usefixtures("traced")
def test_kl_weight_is_no_part_of_the_graph():
    eager, data = loss_of(mlp()), batch()
    compiled = check(eager, *data)
    eager.elbo.kl_weight = 0.125
    check(eager, *data, compiled=compiled)
    assert graphs(compiled) == 1


@pytest.mark.usefixtures("traced")
def test_parameters_and_hyperparameters_may_be_changed_in_place():
    rate = torch.tensor(1.0)

    def model(x, y=None):
        gamma = pyro.sample("gamma", dist.InverseGamma(2.0, rate).expand([5]).to_event(1))
        w = pyro.sample("w", dist.Normal(torch.zeros(5), gamma.sqrt()).to_event(1))
        with pyro.plate("data", 100, subsample=x) as rows:
            pyro.sample("y", dist.Normal(rows @ w, 1.0), obs=y)

    x, _ = batch()
    eager = vbd.VBD_ELBO()(model, vbd.VBDGuide(model, x, x[:, 0]))
    compiled = check(eager, x, x[:, 0])
    with torch.no_grad():
        rate.mul_(3.0)
        for parameter in eager.parameters():
            parameter.add_(0.3)
    check(eager, x, x[:, 0], compiled=compiled)
    assert graphs(compiled) == 1


@pytest.mark.usefixtures("traced")
def test_a_constant_may_have_been_made_in_inference_mode():
    with torch.inference_mode():
        shift = torch.tensor(0.5)
    check(loss_of(Acting(lambda module, out: out + shift.exp())), *batch())


@pytest.mark.usefixtures("traced")
def test_other_batch_sizes_and_modes_get_graphs_of_their_own():
    eager = loss_of(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    compiled = check(eager, *batch(6))
    check(eager, *batch(4), compiled=compiled)  # N/B is another one
    assert graphs(compiled) == 2
    eager.eval()
    check(eager, *batch(6), compiled=compiled)
    assert graphs(compiled) == 3
    check(eager, *batch(6), compiled=compiled)
    eager.train()
    check(eager, *batch(4), compiled=compiled)
    assert graphs(compiled) == 3


def _scaled(module, out):
    return out * module.settings["scales"][0]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("where", ["module", "ELBO", "site weights", "requires_grad"])
def test_a_number_that_has_changed_makes_another_graph(where):
    net = Acting(_scaled)
    net.settings = {"scales": [1.0, 2.0]}
    eager = loss_of(net, elbo=vbd.VBD_ELBO(site_weights={"linear.*": 1.0}))
    compiled = check(eager, *batch())
    if where == "module":
        eager.model.network.net.settings["scales"][0] = 3.0
    elif where == "ELBO":
        eager.elbo.num_particles = 2
    elif where == "site weights":
        eager.elbo.site_weights["linear.*"] = 2.0
    else:
        eager.model.network.net.linear.bias.requires_grad_(False)
    check(eager, *batch(), compiled=compiled)
    assert graphs(compiled) == 2


@pytest.mark.usefixtures("traced")
def test_tensors_that_have_been_replaced_make_another_graph():
    eager, data = loss_of(nn.Linear(5, 3), priors.Horseshoe(priors.Learned(0.5))), batch()
    compiled = check(eager, *data)
    net = eager.model.network.net
    net.bias = nn.Parameter(net.bias.detach() + 1.0)
    check(eager, *data, compiled=compiled)
    learned = eager.model.network.log_hyperparameters
    learned["weight_scale"] = nn.Parameter(learned["weight_scale"].detach() + 1.0)
    check(eager, *data, compiled=compiled)
    eager.double()
    check(eager, data[0].double(), data[1], compiled=compiled)


@pytest.mark.usefixtures("traced")
def test_a_guide_that_is_restricted_makes_another_graph():
    eager, data = loss_of(mlp()), batch()
    compiled = check(eager, *data)
    vbd.restrict(eager.guide, {name: value < value.median() for name, value in eager.guide.log_alpha().items()})
    check(eager, *data, compiled=compiled)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["hook", "post_accumulate_grad_hook"])
def test_hooks_of_gradients_are_called_once_a_step(kind, when):
    eager, data = loss_of(mlp()), batch()
    compiled, calls = vbd.compile(eager), []
    if when == "after":
        compiled(*data).backward()
    getattr(eager.model.network.net[0].bias, f"register_{kind}")(lambda _: calls.append(1))
    optimizer = torch.optim.Adam(eager.parameters())
    with pytest.warns(UserWarning, match="a parameter has hooks of its gradient"):
        compiled.update(optimizer, *data)
    compiled(*data).backward()
    assert len(calls) == 2


@pytest.mark.usefixtures("traced")
def test_beyond_max_graphs_calls_run_eagerly(monkeypatch):
    monkeypatch.setattr(compiled_elbo, "_MANY", 4)
    eager = loss_of(mlp())
    compiled = vbd.compile(eager, max_graphs=1)
    check(eager, *batch(6), compiled=compiled)
    data = batch(4)
    assert_close(numbers(compiled, *data), numbers(eager, *data), rtol=0, atol=0)
    assert graphs(compiled) == 1
    with pytest.warns(UserWarning, match="most steps run without being compiled.*max_graphs=1"):
        [compiled(*data) for _ in range(4)]
    compiled(*data)  # and says so once


@pytest.mark.usefixtures("traced")
def test_gradients_add_up_and_scale_as_autograds_do():
    eager, data = loss_of(mlp()), batch()
    compiled = vbd.compile(eager)
    totals = []
    for loss in (eager, compiled):
        pyro.set_rng_seed(0)
        (3.0 * loss(*data)).backward()
        (loss(*data) - 1.0).backward()
        totals.append({name: leaf.grad.clone() for name, leaf in leaves(loss).items() if leaf.grad is not None})
        eager.zero_grad()
    assert_close(totals[1], totals[0], rtol=1e-4, atol=1e-4)
    loss = compiled(*data)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backward once"):
        loss.backward()


# --- where it must not be used --------------------------------------------------------------------------------------------


def _asks(module, out):
    return out if out.mean() > 0 else -out


def _python_noise(module, out):
    return out * (1.0 + random.random())


def _tensor_of_python_noise(module, out):
    return out * torch.tensor([random.random()])


def _shape_by_values(module, out):
    return out + out[out > 0].sum()


def _parameters_value(module, out):
    return out * float(module.linear.bias.detach()[0])


def _buffers_value(module, out):
    return out * float(module.factor)


def _numbers_the_call(module, out):
    module.memory.append(1.0)
    return out


NOT_STATIC = {
    "asks for a value": _asks,
    "draws from Python's state": _python_noise,
    "makes a tensor of such a draw": _tensor_of_python_noise,
    "has shapes that depend on values": _shape_by_values,
    "takes the number of a parameter": _parameters_value,
    "takes the number of a buffer": _buffers_value,
    "keeps a list": _numbers_the_call,
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", [*NOT_STATIC, "counts"])
def test_a_model_that_is_not_static_is_found_out_and_runs_eagerly(name):
    net = Counting() if name == "counts" else Acting(NOT_STATIC[name])
    net.memory = []
    net.register_buffer("factor", torch.tensor(2.0))
    eager = loss_of(net)
    other = copy.deepcopy(eager)
    compiled, data = vbd.compile(other), batch()
    with pytest.warns(UserWarning, match="runs without being compiled") as caught:
        ours = [numbers(compiled, *data, seed=seed) for seed in range(3)]
    assert_close(ours, [numbers(eager, *data, seed=seed) for seed in range(3)], rtol=0, atol=0)
    assert len(caught) == 1
    assert graphs(compiled) == 0
    inner, reference = other.model.network.net, eager.model.network.net
    if name == "keeps a list":
        assert len(inner.memory) == len(reference.memory) + 1
    if name == "counts":
        assert inner.calls == reference.calls + 1  # of the run that finds what is trained


@pytest.mark.usefixtures("traced")
def test_a_mask_of_choice_by_number_is_static():
    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x):
            return self.linear(x)[torch.arange(len(x))]

    check(loss_of(Picks()), *batch())


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("what", ["requires a gradient", "autocast", "neither a tensor"])
def test_inputs_that_a_graph_cannot_take(what):
    eager, (x, y) = loss_of(mlp()), batch()
    compiled = vbd.compile(eager)
    if what == "requires a gradient":
        x.requires_grad_()
    if what == "neither a tensor":
        x = {"input": x, "unused": object()}
        eager.model.network.net.forward = lambda input, unused: nn.Sequential.forward(eager.model.network.net, input)
    with torch.autocast(y.device.type, enabled=what == "autocast"), pytest.warns(UserWarning, match=what):
        ours = numbers(compiled, x, y)
    with torch.autocast(y.device.type, enabled=what == "autocast"):
        assert_close(ours, numbers(eager, x, y), rtol=0, atol=0)
    if what == "requires a gradient":
        assert x.grad is not None


@pytest.mark.usefixtures("traced")
def test_inside_a_handler_and_without_gradients_it_is_the_eager_one():
    eager, data = loss_of(mlp()), batch()
    compiled = vbd.compile(eager)
    with torch.no_grad():
        assert not compiled(*data).requires_grad
    with pyro.poutine.block():
        assert_close(numbers(compiled, *data), numbers(eager, *data), rtol=0, atol=0)
    assert graphs(compiled) == 0


@pytest.mark.parametrize("call", ["loss", "update"])
@pytest.mark.usefixtures("traced")
def test_data_are_checked_before_the_graph(call):
    eager, (x, y) = loss_of(mlp()), batch()
    compiled = vbd.compile(eager)
    optimizer = torch.optim.Adam(eager.parameters())
    run = compiled if call == "loss" else lambda *data: compiled.update(optimizer, *data)
    run(x, y)
    with pytest.raises(ValueError, match="label"):
        run(x, y + 1)
    with pytest.raises(ValueError, match="NaN"):
        run(x.index_fill(0, torch.tensor([1]), float("nan")), y)
    with pyro.validation_enabled(False):
        run(x.index_fill(0, torch.tensor([1]), float("nan")), y)
    with pytest.raises(ValueError, match=r"\(5,\)|5"):
        run(x, y[:5])


def test_a_step_that_fails_eagerly_fails_as_it_would():
    model = vbd.Classifier(mlp(), GU, num_data=2)
    with pytest.raises(ValueError, match="num_data=2"):
        vbd.compile(vbd.VBD_ELBO()(model, vbd.VBDGuide(model)))(*batch())


@pytest.mark.parametrize("broken", ["compiler", "anything"])
def test_without_a_compiler_it_runs_traced_with_one_warning(monkeypatch, broken):
    eager, data = loss_of(nn.Linear(5, 3)), batch()
    compiled = vbd.compile(eager)
    optimizer = torch.optim.Adam(eager.parameters())
    settings = {}
    if broken == "compiler":
        if data[0].is_cuda:
            pytest.skip("a GPU's code needs no C++ compiler")
        settings = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    else:
        monkeypatch.setattr(torch._inductor, "compile", lambda *_, **__: 1 / 0)
    # torch's own way to change its settings: after pytest's a setting that is another's name is gone
    with torch._inductor.config.patch(settings), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(eager, *data, compiled=compiled)
        for _ in range(2):
            compiled.update(optimizer, *data)
        check(eager, *batch(4), compiled=compiled)
    ours = [w for w in caught if "not compiled" in str(w.message)]
    assert len(ours) == 1
    assert "C++ compiler" in str(ours[0].message) or data[0].is_cuda


# --- around it ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("traced")
def test_copies_and_pickles_have_no_graphs_and_work():
    eager, data = loss_of(mlp()), batch()
    compiled = check(eager, *data)
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert graphs(other) == 0
        assert_close(numbers(other, *data), numbers(eager, *data), rtol=1e-4, atol=1e-4)
        assert other.guide is not eager.guide
    file = io.BytesIO()
    torch.save(compiled.state_dict(), file)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    copy.deepcopy(eager.guide)
    assert vbd.predict(eager.model, eager.guide, data[0], num_samples=3).probs.shape == (6, 3)


@pytest.mark.usefixtures("traced")
def test_tracing_leaves_everything_as_it_was():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    eager, data = loss_of(net, priors.Horseshoe()), batch()
    eager(*data)
    state, generator, python = copy.deepcopy(eager.state_dict()), torch.get_rng_state(), random.getstate()
    flags = torch.backends.mkldnn.enabled
    from pyro_vbd.compiling.static_model import static_trace

    static_trace(eager.elbo, eager.model, eager.guide, data, {})
    assert_close(eager.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), generator)
    assert random.getstate() == python
    assert torch.backends.mkldnn.enabled == flags


@pytest.mark.usefixtures("traced")
def test_progress_is_told():
    words = []
    compiled = vbd.compile(loss_of(mlp()), progress=words.append)
    optimizer = torch.optim.Adam(compiled.parameters())
    for _ in range(2):
        compiled.update(optimizer, *batch())
    assert words == ["tracing the step", "", "compiling the step", ""]


class _Own(vbd.VBD_ELBO):
    def differentiable_loss(self, model, guide, *args, **kwargs):
        return super().differentiable_loss(model, guide, *args, **kwargs) + 1.0


@pytest.mark.parametrize("elbo", [pyro.infer.Trace_ELBO, _Own])
def test_losses_of_other_objectives_are_refused(elbo):
    with pytest.raises(TypeError, match=r"compile takes VBD_ELBO\(\)\(model, guide\)"):
        vbd.compile(loss_of(mlp(), elbo=elbo()))


def test_bad_arguments():
    with pytest.raises(TypeError, match="was given that of VBD_ELBO"):
        vbd.compile(vbd.VBD_ELBO())
    with pytest.raises(ValueError, match="max_graphs=0"):
        vbd.compile(loss_of(mlp()), max_graphs=0)
