import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Predictive
from torch import nn

import pyro_vbd as vbd

PRIOR = vbd.priors.GaussianUniform()
N = 40


def certain_guide(model: nn.Module) -> vbd.VBDGuide:
    """A guide whose weights are their means to seven digits, so that expectations can be written down."""
    return vbd.VBDGuide(model, init_log_var=-60.0)


def log_likelihood(model, x, y, **settings) -> torch.Tensor:
    return vbd.VBD_ELBO(**settings).terms(model, certain_guide(model), x, y).log_likelihood


class Permuted(nn.Module):
    """Outputs (B, T, C) of a linear map as logits (B, C, T)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x):
        return self.linear(x).movedim(-1, 1)


# --- the log-likelihood, by hand -------------------------------------------------------------------------------------


with_each_kind_of_logits = pytest.mark.parametrize(
    ("make", "x_shape", "y_shape"),
    [
        (lambda: nn.Linear(3, 5), (8, 3), (8,)),
        (lambda: nn.Conv2d(3, 5, 1), (8, 3, 4, 2), (8, 4, 2)),
        (Permuted, (8, 6, 3), (8, 6)),
    ],
    ids=["classes", "images", "tokens"],
)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", [{}, {"estimator": "weights"}, {"num_particles": 2, "vectorize_particles": True}])
@with_each_kind_of_logits
def test_class_likelihood_is_the_cross_entropy_scaled_by_n_over_b_once(make, x_shape, y_shape, settings):
    net, x, y = make(), torch.randn(x_shape), torch.randint(5, y_shape)
    value = log_likelihood(vbd.Classifier(net, PRIOR, num_data=N), x, y, **settings)
    torch.testing.assert_close(value, -N / 8 * F.cross_entropy(net(x), y, reduction="sum"), rtol=1e-8, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ignore_index", [-100, 0, 7])
@with_each_kind_of_logits
def test_ignored_positions_count_nothing(make, x_shape, y_shape, ignore_index):
    net, x, y = make(), torch.randn(x_shape), torch.randint(5, y_shape)
    y[::2] = ignore_index
    value = log_likelihood(vbd.Classifier(net, PRIOR, num_data=N, ignore_index=ignore_index), x, y)
    expected = -N / 8 * F.cross_entropy(net(x), y, reduction="sum", ignore_index=ignore_index)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)
    assert value != 0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("squeezed_output", [True, False])
@pytest.mark.parametrize("squeezed_target", [True, False])
def test_binary_likelihood(dtype, squeezed_output, squeezed_target):
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0) if squeezed_output else nn.Identity())
    x, y = torch.randn(8, 3), (torch.arange(8) % 3 == 0).to(dtype)
    value = log_likelihood(vbd.Classifier(net, PRIOR, num_data=N), x, y if squeezed_target else y[:, None])
    expected = -N / 8 * F.binary_cross_entropy_with_logits(net(x).flatten(), y.double(), reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("make", "x_shape"), [(lambda: nn.Linear(3, 4), (8, 3)), (lambda: nn.Conv2d(3, 1, 1), (8, 3, 2, 2))]
)
def test_multilabel_likelihood(make, x_shape):
    net, x = make(), torch.randn(x_shape)
    y = (torch.randn(net(x).shape) > 0).long()
    value = log_likelihood(vbd.Classifier(net, PRIOR, num_data=N, multilabel=True), x, y)
    expected = -N / 8 * F.binary_cross_entropy_with_logits(net(x), y.double(), reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ignore_index", [-100, 7])
@pytest.mark.parametrize("dtype", [torch.long, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"num_particles": 3, "vectorize_particles": True}])
@pytest.mark.parametrize("multilabel", [False, True])
def test_ignored_yes_or_no_counts_nothing(multilabel, settings, dtype, ignore_index):
    net, x = nn.Linear(3, 4 if multilabel else 1), torch.randn(8, 3)
    y = (torch.randn(net(x).shape) > 0).to(dtype)
    y[::2, 0] = ignore_index
    counted = y != ignore_index
    model = vbd.Classifier(net, PRIOR, num_data=N, multilabel=multilabel, ignore_index=ignore_index)
    value = log_likelihood(model, x, y, **settings)
    expected = -N / 8 * F.binary_cross_entropy_with_logits(net(x)[counted], y[counted].double(), reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)
    assert value != 0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("outputs", "y_shape"), [((), (8,)), ((1,), (8,)), ((1,), (8, 1)), ((3,), (8, 3)), ((2, 2), (8, 2, 2))]
)
@pytest.mark.parametrize("settings", [{}, {"num_particles": 3, "vectorize_particles": True}])
def test_regression_likelihood(outputs, y_shape, settings):
    net = nn.Sequential(nn.Linear(3, math.prod(outputs)), nn.Flatten(0) if outputs == () else nn.Unflatten(1, outputs))
    x, y = torch.randn(8, 3), torch.randn(y_shape)
    value = log_likelihood(vbd.Regressor(net, PRIOR, num_data=N, noise=0.7), x, y, **settings)
    expected = N / 8 * dist.Normal(net(x), 0.7).log_prob(y.reshape(net(x).shape)).sum()
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("learn_noise", [True, False])
def test_noise_is_learned_or_fixed(learn_noise):
    model = vbd.Regressor(nn.Linear(3, 1), PRIOR, num_data=8, noise=0.5, learn_noise=learn_noise)
    elbo = vbd.VBD_ELBO()(model, vbd.VBDGuide(model))
    optimizer = torch.optim.Adam(elbo.parameters(), lr=0.1)
    torch.testing.assert_close(model.gaussian.scale, torch.tensor(0.5))
    x = torch.randn(8, 3)
    for _ in range(3):
        optimizer.zero_grad()
        elbo(x, 9 * x[:, 0]).backward()
        optimizer.step()
    assert (model.gaussian.scale.item() > 0.55) == learn_noise
    assert (model.gaussian.scale.item() == pytest.approx(0.5)) == (not learn_noise)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("multilabel", [False, True])
def test_yes_or_no_under_vectorised_particles(count, multilabel):
    net, x = nn.Linear(3, 4 if multilabel else 1), torch.randn(count, 3)
    y = (torch.randn(net(x).shape) > 0).double()
    model = vbd.Classifier(net, PRIOR, num_data=N, multilabel=multilabel)
    value = log_likelihood(model, x, y if multilabel else y.squeeze(-1), num_particles=3, vectorize_particles=True)
    expected = -N / count * F.binary_cross_entropy_with_logits(net(x), y, reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)


# --- likelihoods of one's own ----------------------------------------------------------------------------------------


class StudentT(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, outputs):
        return dist.StudentT(3.0, outputs.squeeze(-1), self.log_scale.exp())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [vbd.Classifier, vbd.Regressor])
def test_function_as_likelihood(kind):
    net, x = nn.Linear(3, 1), torch.randn(8, 3)
    y = torch.randint(9, (8,)).double()
    model = kind(net, PRIOR, num_data=N, likelihood=lambda outputs: dist.Poisson(outputs.squeeze(-1).exp()))
    expected = N / 8 * dist.Poisson(net(x).squeeze(-1).exp()).log_prob(y).sum()
    torch.testing.assert_close(log_likelihood(model, x, y), expected, rtol=1e-8, atol=0)


class TwoHeads(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.mean, self.log_scale, self.output = nn.Linear(3, 1), nn.Linear(3, 1), output

    def forward(self, x):
        return self.output(mean=self.mean(x).squeeze(-1), log_scale=self.log_scale(x).squeeze(-1))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("output", [dict, lambda mean, log_scale: (mean, log_scale)])
@pytest.mark.parametrize("vectorize", [False, True])
def test_a_likelihood_takes_what_the_network_returns(output, vectorize):
    def likelihood(outputs):
        mean, log_scale = outputs.values() if isinstance(outputs, dict) else outputs
        return dist.Normal(mean, log_scale.exp())

    net, x, y = TwoHeads(output), torch.randn(8, 3), torch.randn(8)
    model = vbd.Regressor(net, PRIOR, num_data=N, likelihood=likelihood)
    expected = N / 8 * likelihood(net(x)).log_prob(y).sum()
    value = log_likelihood(model, x, y, num_particles=2, vectorize_particles=vectorize)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", [vbd.Classifier, vbd.Regressor])
def test_several_outputs_without_a_likelihood_are_refused(kind):
    model = kind(TwoHeads(dict), PRIOR, num_data=8)
    with pytest.raises(ValueError, match="the network returns a dict: let it return one tensor, or pass likelihood="):
        model(torch.randn(8, 3), torch.zeros(8))


@pytest.mark.parametrize("module_local_params", [False, True])
@pytest.mark.parametrize("kind", [vbd.Classifier, vbd.Regressor])
def test_parameters_of_a_likelihood_are_trained_by_svi(kind, module_local_params):
    pyro.settings.set(module_local_params=module_local_params)
    likelihood = StudentT()
    model = kind(nn.Linear(3, 1), PRIOR, num_data=8, likelihood=likelihood)
    svi = SVI(model, vbd.VBDGuide(model), pyro.optim.Adam({"lr": 0.05}), vbd.VBD_ELBO())
    x = torch.randn(8, 3)
    for _ in range(3):
        svi.step(x, 20 + x[:, 0])
    assert likelihood.log_scale.item() == pytest.approx(0.15, abs=0.01)  # Adam's first steps


def test_parameters_of_a_likelihood_are_trained_by_torch():
    model = vbd.Regressor(nn.Linear(3, 1), PRIOR, num_data=8, likelihood=StudentT())
    elbo = vbd.VBD_ELBO()(model, vbd.VBDGuide(model))
    x = torch.randn(8, 3)
    elbo(x, x[:, 0]).backward()
    (gradient,) = [p.grad for name, p in elbo.named_parameters() if name.endswith("_likelihood.log_scale")]
    assert gradient.abs() > 0


# --- inputs and draws ------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, first, second):
        return self.first(first) + 2 * self.second(second)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pack", [lambda a, b: (a, b), lambda a, b: [a, b], lambda a, b: {"second": b, "first": a}])
def test_tuple_and_dict_inputs(pack):
    net, a, b, y = TwoInputs(), torch.randn(8, 3), torch.randn(8, 2), torch.randint(4, (8,))
    value = log_likelihood(vbd.Classifier(net, PRIOR, num_data=8), pack(a, b), y)
    torch.testing.assert_close(value, -F.cross_entropy(net(a, b), y, reduction="sum"), rtol=1e-8, atol=0)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("make", "shape", "values"),
    [
        (lambda: vbd.Classifier(nn.Linear(3, 4), PRIOR, N), (8,), range(4)),
        (lambda: vbd.Classifier(Permuted(), PRIOR, N), (8, 6), range(5)),
        (lambda: vbd.Classifier(Permuted(), PRIOR, N, ignore_index=-1), (8, 6), range(5)),
        (lambda: vbd.Classifier(nn.Linear(3, 1), PRIOR, N), (8,), range(2)),
        (lambda: vbd.Classifier(nn.Linear(3, 4), PRIOR, N, multilabel=True), (8, 4), range(2)),
        (lambda: vbd.Classifier(nn.Linear(3, 4), PRIOR, N, multilabel=True, ignore_index=-1), (8, 4), range(2)),
        (lambda: vbd.Regressor(nn.Linear(3, 1), PRIOR, N), (8, 1), None),
    ],
    ids=["classes", "tokens", "ignored", "binary", "multilabel", "ignored labels", "regression"],
)
def test_without_targets_they_are_drawn(make, shape, values, parallel):
    model = make()
    x = torch.randn(8, 6, 3) if len(shape) == 2 and shape[1] == 6 else torch.randn(8, 3)
    drawn = Predictive(model, guide=vbd.VBDGuide(model), num_samples=50, parallel=parallel)(x)["y"]
    assert drawn.shape == (50, *shape)
    assert set(drawn.unique().tolist()) == set(values) if values else drawn.std() > 0
    assert torch.equal(model(x, drawn[0]), drawn[0])


def test_frequencies_of_drawn_classes_are_the_softmax():
    net, x, count = nn.Linear(3, 4), torch.randn(5, 3), 4000
    model = vbd.Classifier(net, PRIOR, N)
    drawn = Predictive(model, guide=certain_guide(model), num_samples=count, parallel=True)(x)["y"]
    p = net(x).softmax(-1).detach()
    z = (F.one_hot(drawn, 4).float().mean(0) - p) / (p * (1 - p) / count).sqrt()
    assert z.abs().max() < 4


def test_model_without_targets_takes_more_data_than_num_data():
    assert vbd.Classifier(nn.Linear(3, 4), PRIOR, num_data=2)(torch.randn(5, 3)).shape == (5,)


def test_data_plate_has_the_size_of_the_data_set():
    model = vbd.Classifier(nn.Linear(3, 4), PRIOR, num_data=N)
    trace = pyro.poutine.trace(model).get_trace(torch.randn(8, 3), torch.randint(4, (8,)))
    (frame,) = trace.nodes["y"]["cond_indep_stack"]
    assert (frame.name, frame.size, frame.full_size, trace.nodes["y"]["scale"]) == ("data", 8, N, N / 8)
    assert trace.nodes["weight"]["scale"] == 1


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_data", [0, -3, True, np.True_, np.int64(0), 10.0, None, "10"])
@pytest.mark.parametrize("kind", [vbd.Classifier, vbd.Regressor])
def test_num_data_must_be_a_positive_integer(kind, num_data):
    with pytest.raises(ValueError, match=r"num_data=.* is no number of data: pass len"):
        kind(nn.Linear(3, 4), PRIOR, num_data)


@pytest.mark.parametrize("num_data", [np.int64(8), torch.tensor(8)])
def test_num_data_may_be_an_integer_of_another_library(num_data):
    model = vbd.Regressor(nn.Linear(3, 1), PRIOR, num_data)
    assert (type(model.num_data), model.num_data) == (int, 8)


def test_no_parameter_is_left_without_an_effect_by_a_likelihood():
    """DistributedDataParallel, for one, waits for a gradient of each."""
    model = vbd.Regressor(nn.Linear(3, 1), PRIOR, 8, likelihood=lambda out: dist.Normal(out.squeeze(-1), 0.5))
    loss = vbd.VBD_ELBO()(model, vbd.VBDGuide(model))
    loss(torch.randn(8, 3), torch.randn(8)).backward()
    assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_noise_must_be_positive(noise):
    with pytest.raises(ValueError, match=r"noise scale=.* use a positive finite number"):
        vbd.Regressor(nn.Linear(3, 1), PRIOR, 8, noise=noise)


def classifier(outputs: int = 4, **settings) -> vbd.Classifier:
    return vbd.Classifier(nn.Linear(3, outputs), PRIOR, 8, **settings)


def regressor(outputs: int = 1, **settings) -> vbd.Regressor:
    return vbd.Regressor(nn.Linear(3, outputs), PRIOR, 8, **settings)


def test_inputs_may_ask_for_a_gradient():
    x = torch.randn(8, 3, requires_grad=True)
    vbd.VBD_ELBO().terms(model := regressor(), vbd.VBDGuide(model), x, torch.zeros(8)).log_likelihood.backward()
    assert x.grad.ne(0).all()


def test_under_autocast_data_are_summed_in_single_precision(device):
    """Their sum would have two digits in half precision."""
    model, y = vbd.Classifier(nn.Linear(3, 4), PRIOR, 4096), torch.arange(4096, device=device) % 4
    guide, x = vbd.VBDGuide(model), torch.randn(4096, 3, device=device)
    found = []
    for enabled in (False, True):
        pyro.set_rng_seed(0)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled):
            found.append(vbd.VBD_ELBO().terms(model, guide, x, y).log_likelihood)
    assert found[1].dtype == torch.float32
    assert found[1].item() == pytest.approx(found[0].item(), rel=5e-4)


def test_autocast_leaves_double_precision_alone(device, float64):
    model = vbd.Regressor(nn.Linear(3, 1), PRIOR, 8)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        trace = pyro.poutine.trace(model).get_trace(torch.randn(8, 3, device=device), torch.randn(8, device=device))
    assert trace.nodes["y"]["fn"].base_dist.loc.dtype == torch.float64


def test_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(ValueError, match="the batch holds 9 data, but num_data=8: pass the size of the whole data set"):
        classifier()(torch.randn(9, 3), torch.zeros(9).long())


@pytest.mark.parametrize(
    ("make", "y"),
    [(classifier, lambda: torch.zeros(0).long()), (lambda: classifier(1), lambda: torch.zeros(0)),
     (regressor, lambda: torch.zeros(0)), (classifier, lambda: None)],
)  # fmt: skip
def test_empty_batch_is_refused(make, y):
    with pytest.raises(ValueError, match="the batch is empty"):
        make()(torch.randn(0, 3), y())


def test_one_class_is_refused():
    """Its cross-entropy is 0 whatever the weights."""
    model = vbd.Classifier(nn.Conv2d(3, 1, 1), PRIOR, 8)
    with pytest.raises(ValueError, match=r"have one class.*multilabel=True"):
        model(torch.randn(8, 3, 2, 2), torch.zeros(8, 2, 2).long())


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (lambda o: dist.Normal(o, 1.0), r"batch shape \(8, 1\), .*\.to_event\(1\)"),
        (lambda o: dist.Normal(o[..., None], 1.0), r"batch shape \(8, 1, 1\), .*\.to_event\(2\)"),
        (lambda o: dist.Normal(o.sum(), 1.0), r"batch shape \(\), .*one per datum"),
        (lambda o: dist.Normal(o[:3, 0], 1.0), r"the targets have shape \(8,\), the outputs call for \(3,\)"),
        (lambda o: dist.Normal(o, 1.0).to_event(1), r"the targets have shape \(8,\), the outputs call for \(8, 1\)"),
    ],
)
def test_likelihood_of_a_wrong_shape_is_refused(likelihood, message):
    with pytest.raises(ValueError, match=message):
        regressor(likelihood=likelihood)(torch.randn(8, 3), torch.zeros(8))


def test_targets_do_not_broadcast_against_a_likelihood():
    """(8, 1) against (8,) would be 64 pairs."""
    model = regressor(likelihood=lambda outputs: dist.Normal(outputs.squeeze(-1), 1.0))
    with pytest.raises(ValueError, match=r"the targets have shape \(8, 1\), the outputs call for \(8,\): reshape y"):
        model(torch.randn(8, 3), torch.zeros(8, 1))
