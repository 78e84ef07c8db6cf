"""Priors without a network: which of forty inputs matter, under three hierarchical priors written by hand in Pyro.

Run it whole, ``python examples/tutorials/3_priors_without_a_network.py``, or cell by cell.
"""

# %% Sixty data of forty inputs, of which five matter
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyro_vbd as vbd
from examples.reporting import save_figure

torch.manual_seed(0)
truth = torch.zeros(40)
truth[[2, 9, 17, 25, 33]] = torch.tensor([2.0, -1.5, 1.0, -0.7, 0.4])
x = torch.randn(60, 40)
y = x @ truth + 0.3 * torch.randn(60)


# %% The model: a slope for each input, whose variance is itself unknown
def regression(slopes):
    """A Pyro model whose slopes ``slopes()`` states."""

    def model(x, y=None):
        w = slopes()
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w, noise), obs=y)

    return model


def gaussian_uniform():
    """The paper's: gamma is the variance."""
    gamma = pyro.sample("gamma", dist.Uniform(0.0, 1e3).expand([40]).to_event(1))
    return pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))


def horseshoe():
    """Here lam is the scale, and all slopes share another, tau."""
    tau = pyro.sample("tau", dist.HalfCauchy(0.1))
    lam = pyro.sample("lam", dist.HalfCauchy(torch.ones(40)).to_event(1))
    return pyro.sample("w", dist.Normal(0.0, tau * lam).to_event(1))


def gaussian():
    """No hierarchy: one scale for all, fixed."""
    return pyro.sample("w", dist.Normal(0.0, torch.ones(40)).to_event(1))


PRIORS = {"Gaussian, scale 1": gaussian, "Gaussian-uniform": gaussian_uniform, "horseshoe": horseshoe}

# %% One guide serves them all: it finds out by itself what gamma, tau and lam are to w
fits = {}
for name, slopes in PRIORS.items():
    pyro.clear_param_store()
    model = regression(slopes)
    guide = vbd.VBDGuide(model, x, y)
    vbd.fit(model, guide, [(x, y)], epochs=1500, lr=2e-2, lr_schedule=vbd.schedules.linear_decay(0.5), progress=False)
    draws = guide.sample(500)["w"]
    fits[name] = draws.mean(0), draws.std(0)
    wrong = (fits[name][0] - truth).square().mean().sqrt().item()
    print(f"{name:<20} root mean square error of the slopes {wrong:.3f}")

# %% The slopes under each prior: the Gaussian shrinks all alike, the others tell five from thirty-five
figure, rows = plt.subplots(len(fits), 1, figsize=(9, 6), sharex=True, sharey=True, layout="constrained")
for axes, (name, (mean, deviation)) in zip(rows, fits.items(), strict=True):
    axes.axhline(0.0, color="grey", linewidth=0.5)
    axes.errorbar(torch.arange(40), mean, 2 * deviation, fmt=".", linewidth=1, label="mean and two standard deviations")
    axes.plot(torch.arange(40), truth, "x", color="black", markersize=5, label="truth")
    axes.set(ylabel="slope", title=name)
rows[0].legend(fontsize=8)
rows[-1].set(xlabel="input")
print("figure:", save_figure(figure, "out/tutorials/3_priors_without_a_network.png"))
