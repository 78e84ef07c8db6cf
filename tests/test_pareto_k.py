import math
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vbd as vbd
from tests.linear_model import data, exact_pair, make_model

arviz = pytest.importorskip("arviz")
pytestmark = pytest.mark.usefixtures("float64")


def test_the_exact_posterior_has_equal_weights():
    x, y = data()
    model, guide = exact_pair(x, y)
    assert vbd.pareto_k(model, guide, x, y) == -math.inf


@pytest.mark.parametrize("spread", [0.4, 0.7, 1.5])
def test_k_of_a_guide_that_is_too_narrow_or_too_wide(spread):
    """For q = N(0, s^2) and p = N(0, 1): P(r > t) falls like t^(-1/(1 - s^2)) for s < 1, k = 1 - s^2; else r is bounded."""
    x, y = data()
    model, guide = exact_pair(x, y, spread)
    found = vbd.pareto_k(model, guide, x, y, num_samples=20_000, batch_size=320_000)
    if spread < 1:
        assert found == pytest.approx(1 - spread**2, abs=0.15)
    else:
        assert found < 0.2


def test_a_guide_beside_the_posterior_is_said_to_be_far_from_it():
    """ArviZ 1 fits no tail where one draw has all the weight, and answers NaN, which is beyond no threshold."""
    x, y = data()
    model, guide = exact_pair(x, y, 1e-3)
    with torch.no_grad():
        guide.posteriors["q/w"].loc.add_(1e7)
    assert vbd.pareto_k(model, guide, x, y, num_samples=100) > 0.7


def test_batches_change_nothing():
    x, y = data()
    model, guide = exact_pair(x, y, 0.4)
    found = []
    for batch_size in (9, 32):  # neither leaves room for two draws at once: the same draws
        pyro.set_rng_seed(1)
        found.append(vbd.pareto_k(model, guide, x, y, num_samples=300, batch_size=batch_size))
    assert found[0] == pytest.approx(found[1], abs=1e-8)


def test_a_delta_of_gamma_leaves_the_weights_against_their_posterior_given_gamma():
    """The guide at its optimum is the posterior of w given gamma*, here exact: the weights are equal."""

    def model(x, y=None):
        gamma = pyro.sample("gamma", dist.Uniform(0.0, 1e3).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), 0.5), obs=y)

    x, y = data()
    guide = vbd.VBDGuide(model, x, y)
    q = guide.posteriors["q/w"]
    for _ in range(2000):  # coordinate ascent: q(w) is the posterior at gamma, gamma = E[w^2] at q(w)
        with torch.no_grad():
            precision = 1 / guide.median()["gamma"] + len(x) / 0.25
            q.loc.copy_(x.T @ y / 0.25 / precision)
            q.log_var.copy_(-precision.log())
    assert vbd.pareto_k(model, guide, x, y) < 0.3


def test_bad_input():
    x, y = data()
    model, guide = exact_pair(x, y)
    with pytest.raises(ValueError, match="num_samples=99"):
        vbd.pareto_k(model, guide, x, y, num_samples=99)
    larger = make_model(1000)
    with pytest.raises(ValueError, match="32 data, but the model's plate has 1000"):
        vbd.pareto_k(larger, vbd.VBDGuide(larger, x, y), x, y)

    def impossible(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.factor("f", torch.where(w > 0, 0.0, -math.inf))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(w, 1.0), obs=y)

    with pytest.raises(ValueError, match="not finite at"):
        vbd.pareto_k(impossible, vbd.VBDGuide(impossible, x, y), x, y)


WITHOUT = """
import sys, torch, pyro_vbd as vbd
sys.modules["arviz"] = None
model = vbd.Regressor(torch.nn.Linear(1, 1), vbd.priors.Gaussian(), 2)
for make in (vbd.pareto_k, vbd.to_arviz):
    try:
        make(model, vbd.VBDGuide(model), torch.zeros(2, 1), torch.zeros(2, 1))
    except ImportError as error:
        assert "pip install 'pyro-vbd[arviz]'" in str(error)
    else:
        raise AssertionError
"""


def test_without_arviz_the_error_names_the_extra():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
