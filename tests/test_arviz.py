"""ArviZ takes what to_arviz makes: its checks, tables and plots, under 0.23 and 1.x, and the numbers are right."""

import itertools
import warnings
from collections import OrderedDict

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.draws.runs import draw_runs
from tests.digits import classifier, digits
from tests.linear_model import NOISE, data, exact_pair, log_evidence, make_model

az = pytest.importorskip("arviz")
IS_FIRST_MAJOR = int(az.__version__.split(".")[0]) == 0
GROUPS = {
    "posterior",
    "log_prior",
    "sample_stats",
    "log_likelihood",
    "posterior_predictive",
    "observed_data",
    "constant_data",
}


def groups(container):
    return set(container.groups()) if IS_FIRST_MAJOR else set(container.children)


@pytest.fixture(scope="module")
def trained(request):
    """A small regression with a hierarchical prior, and its container of 1,000 draws."""
    with torch.device("cpu"):
        pyro.set_rng_seed(0)
        model, x, y = hierarchical(40)
        guide = vbd.VBDGuide(model, x, y)
        vbd.fit(model, guide, [(x, y)], epochs=300, lr=0.05, progress=False)
        return model, guide, x, y, vbd.to_arviz(model, guide, x, y, 1000, sites="*", batch_size=40_000)


def hierarchical(num_data):
    def model(x, y=None):
        gamma = pyro.sample("gamma", dist.Uniform(0.0, 1e3).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        s = pyro.sample("s", dist.HalfNormal(1.0))
        with pyro.plate("data", num_data, subsample=x):
            return pyro.sample("y", dist.Normal((x * w).sum(-1), s.unsqueeze(-1)), obs=y)

    return model, *data(num_data)


def test_groups_dims_and_attributes(trained):
    *_, found = trained
    assert groups(found) == GROUPS
    assert isinstance(found, az.InferenceData) if IS_FIRST_MAJOR else type(found).__name__ == "DataTree"
    assert found.posterior["w"].dims == ("chain", "draw", "w_dim_0")
    assert found.posterior["gamma"].dims == ("chain", "draw", "w_dim_0")
    assert found.posterior["s"].dims == ("chain", "draw")
    assert found.log_likelihood["y"].dims == found.posterior_predictive["y"].dims == ("chain", "draw", "data")
    assert found.observed_data["y"].dims == ("data",)
    assert found.constant_data["x"].dims == ("data", "x_dim_1")
    assert set(found.sample_stats) == {"lp", "log_q"}
    assert dict(found.posterior.sizes) == {"chain": 1, "draw": 1000, "w_dim_0": 3}
    for group in found.posterior, found.log_likelihood:
        assert group.attrs["inference_library"] == group.attrs["creation_library"] == "pyro_vbd"
        assert group.attrs["inference_library_version"] == vbd.__version__
        assert group.attrs["sample_dims"] == ["chain", "draw"]
        assert group.attrs["created_at"]


def test_numbers(trained):
    _, guide, x, y, found = trained
    w, s = (torch.from_numpy(found.posterior[name].values[0]) for name in ("w", "s"))
    expected = torch.distributions.Normal(w @ x.T, s[:, None]).log_prob(y)
    assert torch.allclose(torch.from_numpy(found.log_likelihood["y"].values[0]), expected, atol=1e-4)
    assert np.allclose(found.observed_data["y"], y)
    assert np.allclose(found.constant_data["x"], x)
    lp = found.log_likelihood["y"].sum("data") + sum(found.log_prior.data_vars.values())
    assert np.allclose(found.sample_stats["lp"], lp, atol=1e-3)
    assert np.allclose(found.posterior["gamma"][0, 0], guide.median()["gamma"])


def test_checks_and_tables(trained):
    model, guide, x, y, found = trained
    loo = az.loo(found, pointwise=True)
    elpd = float(loo.elpd_loo if IS_FIRST_MAJOR else loo.elpd)
    deviations = (found.log_likelihood["y"] - found.log_likelihood["y"].max("draw")).values[0]
    exact = -np.log(np.exp(-deviations).mean(0)) + found.log_likelihood["y"].max("draw").values[0]
    assert elpd == pytest.approx(exact.sum(), abs=0.5)  # plain importance sampling
    assert float(loo.pareto_k.max()) < 0.7
    other = vbd.to_arviz(model, guide, x, y, 500)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Estimated shape parameter|Pareto).*")
        compared = az.compare({"a": found, "b": other})
    assert set(compared.index) == {"a", "b"}
    table = az.summary(found, var_names=["w", "s"])
    assert len(table) == 4
    assert np.allclose(table["mean"].astype(float)[:3], guide.median()["w"], atol=0.05)


@pytest.mark.skipif(IS_FIRST_MAJOR, reason="ArviZ 1.x alone has it")
def test_loo_of_an_approximate_posterior(trained):
    *_, found = trained
    stats = found.sample_stats
    approximate = az.loo_approximate_posterior(found, stats.lp, stats.log_q)
    assert approximate.approx_posterior
    assert approximate.elpd == pytest.approx(az.loo(found).elpd, abs=1.0)
    assert len(az.psense_summary(found, var_names=["w"])) == 3


def test_plots(trained):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    *_, found = trained
    some = {"var_names": ["w"]}
    first = {"plot_posterior": some, "plot_trace": some, "plot_ppc": {"num_pp_samples": 20}, "plot_loo_pit": {"y": "y"}}
    second = {"plot_dist": some, "plot_trace_dist": some, "plot_ppc_dist": {"num_samples": 20}, "plot_loo_pit": {}}
    plots = {"plot_forest": some, **(first if IS_FIRST_MAJOR else second)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ and matplotlib among themselves
        for name, options in plots.items():
            assert getattr(az, name)(found, **options) is not None, name
        matplotlib.pyplot.close("all")


def test_goes_to_a_file_and_back(trained, tmp_path):
    pytest.importorskip("h5netcdf")
    *_, found = trained
    found.to_netcdf(str(tmp_path / "found.nc"))
    again = az.from_netcdf(str(tmp_path / "found.nc"))
    assert groups(again) == GROUPS
    assert np.array_equal(again.posterior["w"], found.posterior["w"])
    assert again.posterior.attrs["inference_library"] == "pyro_vbd"


def test_a_classifier_of_digits(device):
    x, y, x_test, y_test = digits(device, train=600)
    net = nn.Sequential(OrderedDict(fc1=nn.Linear(64, 20), act=nn.ReLU(), fc2=nn.Linear(20, 10)))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=600)
    guide = vbd.VBDGuide(model)
    vbd.fit(model, guide, vbd.Batches(x, y, batch_size=50), epochs=20, lr=5e-3, elbo=vbd.VBD_ELBO(0.1), progress=False)
    found = vbd.to_arviz(model, guide, x, y, 30, batch_size=250)
    assert set(found.posterior) == {"fc1.weight_gamma", "fc2.weight_gamma"}
    assert found.posterior["fc1.weight_gamma"].dims == ("chain", "draw", "fc1.out", "fc1.in")
    elbo = vbd.VBD_ELBO(estimator="weights", hyperprior_constant=True)
    bounds = torch.tensor([-elbo.loss(model, guide, x, y) for _ in range(30)])
    weights = (found.sample_stats["lp"] - found.sample_stats["log_q"]).values[0]
    assert abs(weights.mean() - float(bounds.mean())) < 4 * ((weights.var() + float(bounds.var())) / 30) ** 0.5
    test = vbd.to_arviz(model, guide, x_test, y_test, 30)
    assert set(test.sample_stats) == {"log_q"}  # the posterior is not of these data
    right = np.exp(test.log_likelihood["y"].values[0]).mean(0)
    assert 0.5 < (right > 0.5).mean() <= 1
    predicted = test.posterior_predictive["y"].values[0]
    assert abs((predicted == y_test.cpu().numpy()).mean() - right.mean()) < 4 * 0.5 / predicted.size**0.5


@pytest.mark.parametrize("prior", [vbd.priors.Gaussian(), vbd.priors.LogUniform()])
def test_without_hyper_latents_the_posterior_is_empty_and_loo_works(prior):
    model = vbd.Regressor(nn.Linear(3, 1), prior, num_data=32)
    x, y = data()
    found = vbd.to_arviz(model, vbd.VBDGuide(model), x, y, 200)
    assert not len(found.posterior.data_vars)
    assert az.loo(found).n_data_points == 32
    assert set(vbd.to_arviz(model, vbd.VBDGuide(model), x, y, 5, sites="weight").posterior) == {"weight"}


def test_a_guide_of_pyro():
    x, y = data()
    model = make_model(32)
    guide = pyro.infer.autoguide.AutoNormal(model)
    found = vbd.to_arviz(model, guide, x, y, 200, sites="*")
    assert found.posterior["w"].shape == (1, 200, 3)
    assert found.sample_stats["lp"].shape == (1, 200)


@pytest.mark.usefixtures("float64")
def test_densities_of_an_exact_guide_give_the_evidence():
    x, y = data()
    model, guide = exact_pair(x, y)
    found = vbd.to_arviz(model, guide, x, y, 10, batch_size=11)
    assert np.allclose(found.sample_stats["lp"] - found.sample_stats["log_q"], log_evidence(x, y))


def test_a_subset_of_the_data(trained):
    model, guide, x, y, _ = trained
    found = vbd.to_arviz(model, guide, x, y, 50, sites="*", subset=7, batch_size=13)
    chosen = found.log_likelihood["data"].values
    assert len(set(chosen)) == 7
    assert np.allclose(found.observed_data["y"], y.numpy()[chosen])
    assert np.allclose(found.constant_data["x"], x.numpy()[chosen])
    w, s = (torch.from_numpy(found.posterior[name].values[0]) for name in ("w", "s"))
    every = torch.distributions.Normal(w @ x.T, s[:, None]).log_prob(y)
    assert np.allclose(found.log_likelihood["y"][0], every.numpy()[:, chosen], atol=1e-4)
    lp = every.sum(1).numpy() + sum(found.log_prior.data_vars.values()).values[0]
    assert np.allclose(found.sample_stats["lp"][0], lp, atol=1e-3)  # of all data
    assert len(vbd.to_arviz(model, guide, x, y, 2, subset=1000).observed_data["data"]) == 40


def test_some_groups_and_sites(trained):
    model, guide, x, y, _ = trained
    assert set(vbd.to_arviz(model, guide, x, y, 5).posterior) == {"gamma", "s"}
    assert set(vbd.to_arviz(model, guide, x, y, 5, sites=["w", "s*"]).posterior) == {"w", "s"}
    assert groups(vbd.to_arviz(model, guide, x, y, 5, groups="log_likelihood")) == {"log_likelihood"}
    for some in itertools.combinations(sorted(GROUPS), 2):
        assert groups(vbd.to_arviz(model, guide, x, y, 5, groups=some)) == set(some)


def test_inputs_in_tuples_dicts_and_loaders():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 1)

        def forward(self, a, b):
            return self.fc(a) + b

    model = vbd.Regressor(Net(), vbd.priors.GaussianUniform(), num_data=6)
    guide = vbd.VBDGuide(model)
    a, b, y = torch.randn(6, 3), torch.randn(6, 1), torch.randn(6)
    expected = vbd.to_arviz(model, guide, (a, b), y, 3).observed_data["y"]
    for x, names in (((a, b), {"x.0", "x.1"}), ({"a": a, "b": b}, {"x.a", "x.b"})):
        assert set(vbd.to_arviz(model, guide, x, y, 3).constant_data) == names
    loader = [((a[:4], b[:4]), y[:4]), ((a[4:], b[4:]), y[4:])]
    found = vbd.to_arviz(model, guide, loader, num_samples=3)
    assert np.array_equal(found.observed_data["y"], expected)
    assert set(found.constant_data) == {"x.0", "x.1"}


def test_a_name_that_means_two_lengths_is_used_once():
    def model(x, y=None):
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]))
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(w * x, 1.0).to_event(1), obs=y)

    x, y = torch.randn(5), torch.randn(5)
    found = vbd.to_arviz(model, vbd.VBDGuide(model, x, y), x, y, 3, sites="*")
    assert found.posterior["z"].dims == ("chain", "draw", "data")
    assert found.log_likelihood["y"].dims == ("chain", "draw")
    assert found.observed_data["y"].dims == ("y_dim_0",)


def test_numbers_that_nobody_asked_for_are_refused():
    model = classifier(60_000)
    guide = vbd.VBDGuide(model)
    x, y = torch.zeros(1, 64).expand(60_000, 64), torch.zeros(60_000).long()
    with pytest.raises(ValueError, match=r"1000 draws for 60000 data are 120,000,000 numbers: pass subset=1000"):
        vbd.to_arviz(model, guide, x, y, 1000)
    with pytest.raises(ValueError, match="120,000,000 numbers"):
        vbd.to_arviz(model, guide, x, y, 1000, groups=["log_likelihood", "posterior_predictive"])
    assert vbd.to_arviz(model, guide, x, y, 2, subset=10).log_likelihood["y"].shape == (1, 2, 10)


def test_many_latents_that_nobody_asked_for_are_refused():
    def model(x, y=None):
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0).expand([200, 100]).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x, s.mean((-1, -2)).unsqueeze(-1)), obs=y)

    x, y = torch.randn(3), torch.randn(3)
    guide = vbd.VBDGuide(model, x, y)
    with pytest.raises(ValueError, match=r"20,000,000 numbers: name those to hold"):
        vbd.to_arviz(model, guide, x, y, 1000)
    assert vbd.to_arviz(model, guide, x, y, 5, sites="*").posterior["s"].shape == (1, 5, 200, 100)


def test_bad_input(trained):
    model, guide, x, y, _ = trained
    for message, options in (
        ("num_samples=0", {"num_samples": 0}),
        (r"groups \['prior'\] are unknown", {"groups": ["prior"]}),
        (r"groups \['log'\] are unknown", {"groups": "log"}),
        ("sites='nothing'", {"sites": "nothing"}),
        ("subset=0", {"subset": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            vbd.to_arviz(model, guide, x, y, **options)
    with pytest.raises(ValueError, match="no targets"):
        vbd.to_arviz(model, guide, x)

    def no_plate(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal((x * w).sum(-1), NOISE).to_event(1), obs=y)

    with pytest.raises(ValueError, match=r"no plate tells the data of \['y'\] apart"):
        vbd.to_arviz(no_plate, vbd.VBDGuide(no_plate, x, y), x, y, subset=3)
    network = classifier(60)
    guide = vbd.VBDGuide(network)
    with pytest.raises(ValueError, match="NaN"):
        vbd.to_arviz(network, guide, torch.full((60, 64), torch.nan), torch.zeros(60).long(), 2)


def test_nothing_is_left_behind(trained):
    model, guide, x, y, _ = trained
    with pyro.poutine.trace() as outer:
        vbd.to_arviz(model, guide, x, y, 3)
    assert not set(outer.trace.nodes) - {"_INPUT", "_RETURN"}
    network = classifier(20)
    guide = vbd.VBDGuide(network)
    vbd.to_arviz(network, guide, torch.randn(20, 64), torch.zeros(20).long(), 3)
    assert network.training
    assert guide.training
    assert all(p.grad is None for p in [*network.parameters(), *guide.parameters()])
    with draw_runs(network, guide, (torch.randn(20, 64), torch.zeros(20).long()), 100):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_in_inference_mode_too():
    """What depends on what is found by gradients."""
    model, x, y = hierarchical(5)
    guide = vbd.VBDGuide(model, x, y)
    with torch.inference_mode():
        container = vbd.to_arviz(model, guide, x, y, 3)
    assert set(container.posterior.data_vars) == {"gamma", "s"}


def test_a_subset_is_drawn_at_random():
    """Each of 40 data is one of 10 with probability 1/4."""
    x, y = data(40)
    model = make_model(40)
    guide = vbd.VBDGuide(model, x, y)
    counts = np.zeros(40)
    for _ in range(60):
        found = vbd.to_arviz(model, guide, x, y, 1, groups=["observed_data"], subset=10).observed_data["data"].values
        assert (np.diff(found) > 0).all()
        counts[found] += 1
    z = (counts - 15) / (60 * 0.25 * 0.75) ** 0.5
    assert abs(z).max() < 4
    assert (z**2).sum() > 10  # of 39 degrees of freedom: not the same ones in turn


def test_a_model_of_several_arguments():
    def model(a, b, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 6, subsample=a):
            pyro.sample("y", dist.Normal(w * a + b, 1.0), obs=y)

    a, b, y = torch.randn(3, 6)
    loader = [(a[:4], b[:4], y[:4]), (a[4:], b[4:], y[4:])]
    found = vbd.to_arviz(model, vbd.VBDGuide(model, a, b, y), loader, num_samples=2).constant_data
    assert np.array_equal(found["x.0"], a)
    assert np.array_equal(found["x.1"], b)


def test_latents_at_a_point_are_not_many_numbers():
    def model(x, y=None):
        gamma = pyro.sample("gamma", dist.Uniform(0.0, 10.0).expand([200, 100]).to_event(2))
        w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x, 1.0 + w.square().mean((-1, -2)).unsqueeze(-1)), obs=y)

    x, y = torch.randn(3), torch.randn(3)
    found = vbd.to_arviz(model, vbd.VBDGuide(model, x, y), x, y, 1000, groups=["posterior"])
    assert found.posterior["gamma"].shape == (1, 1000, 200, 100)


@pytest.mark.parametrize("batch_size", [4, 100])
def test_a_weight_that_is_held_is_no_target(batch_size):
    """poutine.condition makes it an observed site, which counts once in lp, and is held in the predictive draws too."""
    x, y = data(10)
    w = torch.full((3,), 50.0)

    def free(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10, subsample=x):
            mean = (x * w.unsqueeze(-2)).sum(-1) + b.unsqueeze(-1)
            z = pyro.sample("z", dist.Normal(mean, NOISE), obs=None if y is None else y[:, 0])
            return pyro.sample("y", dist.Normal(z, NOISE), obs=None if y is None else y[:, 1])

    model, y = pyro.poutine.condition(free, data={"w": w}), torch.stack([y, y], 1)
    found = vbd.to_arviz(model, vbd.VBDGuide(model, x, y), x, y, 5, sites="*", batch_size=batch_size)
    for group in found.log_likelihood, found.posterior_predictive, found.observed_data:
        assert set(group.data_vars) == {"z", "y"}
    likelihood = sum(value.sum("data") for value in found.log_likelihood.data_vars.values())
    held = float(torch.distributions.Normal(0.0, 1.0).log_prob(w).sum())
    assert np.allclose(found.sample_stats["lp"], likelihood + found.log_prior["b"] + held, rtol=1e-5)
    predicted = found.posterior_predictive["y"].values[0] - found.posterior["b"].values[0][:, None]
    assert abs(predicted - (x @ w).numpy()).max() < 6 * 2**0.5 * NOISE


def test_an_observation_outside_the_plate_that_follows_the_data_is_refused_in_batches():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("all", dist.Normal(w * x, 1.0).to_event(1), obs=y)
        with pyro.plate("data", 10, subsample=x):
            pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    x, y = torch.randn(2, 10)
    with pytest.raises(ValueError, match="the observed 'all' stands in no plate"):
        vbd.to_arviz(model, vbd.VBDGuide(model, x, y), x, y, 2, batch_size=4)


def test_a_model_inside_handlers_has_the_names_of_its_modules():
    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.GaussianUniform(), num_data=10)
    x, y = torch.randn(12, 3), torch.randn(12, 1)  # more than num_data, as a test set may be
    found = vbd.to_arviz(pyro.poutine.scale(model, scale=2.0), vbd.VBDGuide(model), x, y, 2, sites="*")
    assert found.posterior["weight"].dims == ("chain", "draw", "out", "in")


def test_half_precision_becomes_single():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, dtype=torch.bfloat16), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), 1.0), obs=y)

    x, y = torch.randn(8, 3).bfloat16(), torch.randn(8).bfloat16()
    found = vbd.to_arviz(model, vbd.VBDGuide(model, x, y), x, y, 3, sites="*")
    assert found.posterior["w"].dtype == found.constant_data["x"].dtype == np.float32
    assert np.array_equal(found.constant_data["x"], x.float())
