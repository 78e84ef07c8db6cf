import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.predict import _batches, _Classes, _Values
from tests.digits import classifier


def linear_posterior(num_samples):
    """y = w x + noise with q(w) = N(2, 0.5^2): the predictive moments are known."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2.0)
    model = vbd.Regressor(net, vbd.priors.Gaussian(1.0), num_data=10, noise=0.3)
    guide = vbd.VBDGuide(model)
    with torch.no_grad():
        guide.posteriors["q/weight"].log_var.fill_(2 * torch.tensor(0.5).log())
    x = torch.tensor([[0.0], [1.0], [-3.0]])
    return x, vbd.predict(model, guide, x, num_samples=num_samples)


def test_moments_of_a_regression():
    x, found = linear_posterior(4000)
    deviation = 0.5 * x.abs()
    assert ((found.mean - 2 * x).abs() <= 4 * deviation / 4000**0.5 + 1e-6).all()
    epistemic = deviation.square()
    assert ((found.epistemic_variance - epistemic).abs() <= 4 * epistemic * (2 / 4000) ** 0.5 + 1e-6).all()
    assert torch.allclose(found.variance, found.epistemic_variance + 0.09, atol=1e-4)


def test_one_draw_has_no_epistemic_variance():
    _, found = linear_posterior(1)
    assert (found.epistemic_variance == 0).all()


def test_probabilities_average_the_draws_and_split_the_entropy():
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    with torch.no_grad():
        guide.posteriors["q/0/weight"].log_var.fill_(-2.0)
    x = torch.randn(7, 64)
    pyro.set_rng_seed(5)
    found = vbd.predict(model, guide, x, num_samples=6)
    pyro.set_rng_seed(5)
    with torch.no_grad():
        draws = torch.stack([pyro.poutine.trace(pyro.poutine.replay(model, trace=pyro.poutine.trace(guide).get_trace(x)))
                             .get_trace(x).nodes["y"]["fn"].probs for _ in range(6)])  # fmt: skip
    assert torch.allclose(found.probs, draws.mean(0), atol=1e-6)
    entropy = torch.distributions.Categorical(probs=draws.mean(0)).entropy()
    inner = torch.distributions.Categorical(probs=draws).entropy().mean(0)
    assert torch.allclose(found.entropy, entropy, atol=1e-5)
    assert torch.allclose(found.mutual_information, entropy - inner, atol=1e-5)
    assert (found.mutual_information > 0.05).all()


def test_scales_with_a_posterior_of_their_own_are_not_drawn(monkeypatch):
    """Targets depend on the weights alone, and the quantiles of as many scales as weights take long."""
    monkeypatch.delattr("pyro_vbd.posterior.exact_scale.ExactScale.quantile")
    model, found = vbd.Classifier(nn.Linear(5, 3), vbd.priors.Horseshoe(), num_data=10), []
    x = torch.randn(7, 5)
    for scale_posterior in ("delta", "exact"):
        guide = vbd.VBDGuide(model, scale_posterior=scale_posterior, init_log_var=-1.0)
        pyro.set_rng_seed(3)
        found.append(vbd.predict(model, guide, x, num_samples=6).probs)
    assert torch.equal(*found)


def test_entropies_at_certainty_and_at_ignorance():
    net = nn.Linear(2, 4, bias=False)
    nn.init.zeros_(net.weight)
    model = vbd.Classifier(net, vbd.priors.Gaussian(1.0), 10)
    guide = vbd.VBDGuide(model)
    unsure = vbd.predict(model, guide, torch.ones(1, 2), num_samples=3)
    assert unsure.entropy.item() == pytest.approx(torch.tensor(4.0).log().item(), abs=1e-3)
    with torch.no_grad():
        guide.posteriors["q/weight"].loc[0] = 500.0
    sure = vbd.predict(model, guide, torch.ones(1, 2), num_samples=3)
    assert sure.entropy.item() == pytest.approx(0, abs=1e-6)
    assert sure.mutual_information.item() == 0


def test_binary_entropy_counts_both_outcomes():
    net = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(net.weight)
    model = vbd.Classifier(net, vbd.priors.Gaussian(1.0), 10)
    found = vbd.predict(model, vbd.VBDGuide(model), torch.ones(3, 2), num_samples=2)
    assert found.probs.shape == (3,)
    assert found.entropy[0].item() == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_are_put_together_in_order(batch_size):
    model = classifier(20)
    guide = vbd.VBDGuide(model, init_log_var=-60.0)
    x = torch.randn(10, 64)
    found = vbd.predict(model, guide, x, num_samples=1, batch_size=batch_size)
    assert torch.allclose(found.probs, vbd.point_network(model, guide)(x).softmax(-1), atol=1e-5)


def outputs_in_a_plate(count):
    """Targets of shape (count, N): the plate of the data is not the first dimension."""

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("out", count, dim=-2), pyro.plate("data", len(x), dim=-1):
            return pyro.sample("y", dist.Normal((x * w).sum(-1) + torch.arange(count)[:, None], 0.5), obs=y)

    x = torch.randn(40, 3)
    return model, vbd.VBDGuide(model, x, x.sum(-1).expand(count, 40), init_log_var=-60.0), x


@pytest.mark.parametrize("batch_size", [20, 30, 38])
def test_batches_are_put_together_along_the_plate_of_the_data(batch_size):
    """The last of 38 has two data, as many as there are outputs."""
    model, guide, x = outputs_in_a_plate(2)
    found = vbd.predict(model, guide, x, num_samples=2, batch_size=batch_size)
    expected = vbd.predict(model, guide, x, num_samples=2)
    assert found.mean.shape == found.variance.shape == (2, 40)
    assert torch.allclose(found.mean, expected.mean, atol=1e-5)


def test_plates_that_are_all_as_long_as_the_batches_are_refused():
    model, guide, x = outputs_in_a_plate(20)
    with pytest.raises(ValueError, match=r"stand in the plates \['data', 'out'\], each as long as a batch.*batch_size"):
        vbd.predict(model, guide, x, num_samples=2, batch_size=20)
    assert vbd.predict(model, guide, x, num_samples=2, batch_size=30).mean.shape == (20, 40)
    assert vbd.predict(model, guide, list(x.split([20, 15, 5])), num_samples=2).mean.shape == (20, 40)


def test_batches_of_a_model_without_a_plate_are_put_together_along_the_first_dimension():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        return pyro.sample("y", dist.Normal(x * w, 0.5).to_event(2), obs=y)

    x = torch.randn(40, 3)
    guide = vbd.VBDGuide(model, x, x)
    assert vbd.predict(model, guide, x, num_samples=2, batch_size=30).mean.shape == (40, 3)


def test_a_loader_gives_what_a_tensor_gives():
    model = classifier(20)
    guide = vbd.VBDGuide(model, init_log_var=-60.0)
    x = torch.randn(10, 64)
    loader = vbd.Batches(x, torch.zeros(10), batch_size=3, shuffle=False)
    a, b = vbd.predict(model, guide, loader, num_samples=1), vbd.predict(model, guide, x, num_samples=1)
    assert torch.allclose(a.probs, b.probs, atol=1e-5)


def test_batches_of_a_loader_are_held_one_at_a_time():
    """A data set larger than memory is predicted too."""
    model = classifier(20)
    log = []

    class Loader:
        def __iter__(self):
            for number in range(3):
                log.append(f"batch {number}")
                yield torch.randn(2, 64), torch.zeros(2)

    handle = model.network.net.register_forward_hook(lambda *_: log.append("run"))
    found = vbd.predict(model, vbd.VBDGuide(model), Loader(), num_samples=1)
    handle.remove()
    assert found.probs.shape == (6, 10)
    assert log == ["batch 0", "run", "batch 1", "run", "batch 2", "run"]


def test_hand_written_model():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)

    x = torch.randn(20, 3)
    guide = vbd.VBDGuide(model, x, x.sum(-1))
    found = vbd.predict(model, guide, x, num_samples=50)
    assert found.mean.shape == (20,)
    assert (found.variance >= 0.25).all()


def test_modes_and_handlers_are_left_alone():
    net = nn.Sequential(nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 10))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    model.network.net[2].eval()
    guide = vbd.VBDGuide(model)
    with pyro.poutine.trace() as outer:
        vbd.predict(model, guide, torch.randn(4, 64), num_samples=2)
    assert not outer.trace.nodes or set(outer.trace.nodes) <= {"_INPUT", "_RETURN"}
    assert model.training
    assert not model.network.net[2].training
    assert int(model.network.net[1].num_batches_tracked) == 0


def test_a_loader_of_inputs_alone():
    """Its batches are tensors, and not inputs and targets."""
    model = classifier(20)
    guide = vbd.VBDGuide(model, init_log_var=-60.0)
    x = torch.randn(10, 64)
    found = vbd.predict(model, guide, list(x.split(3)), num_samples=1)
    assert torch.allclose(found.probs, vbd.predict(model, guide, x, num_samples=1).probs, atol=1e-5)


@pytest.mark.parametrize("size", [1, 5, 6, 7])
def test_batches_are_counted_for_the_progress_bar(size):
    x = torch.randn(size, 2)
    loader = x.split(3)
    assert len(_batches(x, 3)) == len(_batches((x, x), 3)) == len(_batches(list(loader), 3)) == len(loader)


class Weighted(nn.Module):
    """Inputs beside the tensor that are none."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x, mask, flag, mode):
        assert (mask, flag, mode) == (None, True, "sum")
        return self.linear(x)


def test_inputs_that_are_no_tensors_go_with_every_batch():
    model, x = vbd.Classifier(Weighted(), vbd.priors.GaussianUniform(), 10), torch.randn(10, 3)
    guide = vbd.VBDGuide(model, init_log_var=-60.0)
    for inputs in ({"x": x, "mask": None, "flag": True, "mode": "sum"}, (x, None, True, "sum")):
        for batch_size in (4, 10):
            found = vbd.predict(model, guide, inputs, num_samples=2, batch_size=batch_size)
            assert torch.allclose(found.probs, model.network.net.linear(x).softmax(-1), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("batch_size", [4, 10])
def test_sparse_inputs(layout, batch_size):
    net, x = nn.Linear(3, 2), torch.randn(10, 3).relu()
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model, init_log_var=-60.0)
    found = vbd.predict(model, guide, x.to_sparse(layout=layout), num_samples=2, batch_size=batch_size)
    assert torch.allclose(found.probs, net(x).softmax(-1), atol=1e-5)


def test_all_data_in_one_batch_are_the_inputs_themselves():
    x = {"x": torch.randn(10, 3), "mask": None}
    (batch,) = _batches(x, 10)
    assert batch[0] is x


def test_a_guide_of_ones_own_is_in_evaluation_mode():
    modes = []

    class Guide(nn.Module):
        def forward(self, x):
            modes.append(self.training)
            pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), 0.5), obs=y)

    guide = Guide()
    vbd.predict(model, guide, torch.randn(4, 3), num_samples=2)
    assert modes
    assert not any(modes)
    assert guide.training


def test_no_information_is_below_zero():
    """Draws that agree, whose mean is rounded to another number than theirs."""
    draw = dist.Categorical(probs=torch.rand(500, 7))
    sums = _Classes(draw)
    for _ in range(3):
        sums.add(1, draw)
    assert (sums.result(3).mutual_information >= 0).all()


def test_bad_input():
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    with pytest.raises(ValueError, match="num_samples=0"):
        vbd.predict(model, guide, torch.randn(2, 64), num_samples=0)
    for batch_size in (0, -5):
        with pytest.raises(ValueError, match=f"batch_size={batch_size} holds nothing"):
            vbd.predict(model, guide, torch.randn(2, 64), batch_size=batch_size)
    with pytest.raises(ValueError, match="nothing to predict"):
        vbd.predict(model, guide, torch.randn(0, 64))
    with pytest.raises(ValueError, match="nothing to predict"):
        vbd.predict(model, guide, [])
    with pytest.raises(ValueError, match=r"draws \['y'\].*site="):
        vbd.predict(model, guide, torch.randn(2, 64), site="z")
    with pytest.raises(ValueError, match="one length"):
        vbd.predict(model, guide, (torch.randn(2, 64), torch.randn(3, 64)))


@pytest.mark.parametrize("num_samples", [1, 20])
def test_targets_without_a_mean_are_refused_by_name(num_samples):
    def likelihood(outputs):
        sigmoid = torch.distributions.transforms.SigmoidTransform()
        return dist.TransformedDistribution(dist.Normal(outputs, 1.0), [sigmoid]).to_event(1)

    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.GaussianUniform(), 10, likelihood=likelihood)
    with pytest.raises(ValueError, match=r"TransformedDistribution of the targets has no mean or no variance.*Predictive"):
        vbd.predict(model, vbd.VBDGuide(model), torch.randn(5, 3), num_samples=num_samples)


def test_sums_of_several_draws_at_a_time_are_those_of_all():
    means, scales = 100.0 + torch.randn(9, 4, dtype=torch.float64), torch.rand(9, 4, dtype=torch.float64) + 0.1
    probs = scales / 1.2
    values, classes = _Values(dist.Normal(means[0], 1.0)), _Classes(dist.Bernoulli(probs[0]))
    for part in (slice(0, 1), slice(1, 6), slice(6, 9)):
        count = part.stop - part.start
        values.add(count, dist.Normal(means[part].unsqueeze(1), scales[part].unsqueeze(1)))
        classes.add(count, dist.Bernoulli(probs[part]))
    found = values.result(9)
    assert torch.allclose(found.mean, means.mean(0), rtol=1e-12)
    assert torch.allclose(found.epistemic_variance, means.var(0, correction=0), rtol=1e-9)
    assert torch.allclose(found.variance, means.var(0, correction=0) + scales.square().mean(0), rtol=1e-9)
    inner = dist.Bernoulli(probs).entropy().mean(0)
    assert torch.allclose(classes.result(9).mutual_information, dist.Bernoulli(probs.mean(0)).entropy() - inner)
