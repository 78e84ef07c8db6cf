"""The same step by other libraries: each one function, skipped where its package is missing or does not run here.

Their objectives are not all the same (priors differ, and a sampled KL stands in for a closed form in blitz and
torch-uncertainty); what is compared is the time of one step of a network of that shape with a Gaussian posterior.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn

from examples.benchmarks.contenders import Step, Unfit, contender, training_step
from examples.benchmarks.problems import Problem

__all__ = ["bayesian_network"]


def bayesian_network(
    problem: Problem, linear: Callable[[int, int], nn.Module], convolution: Callable[[int, int, Any], nn.Module]
) -> nn.Sequential:
    """The problem's network with a peer's layers in place of torch's, made as torch's are."""

    def theirs(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.Linear):
            return linear(layer.in_features, layer.out_features)
        if isinstance(layer, nn.Conv2d):
            return convolution(layer.in_channels, layer.out_channels, layer.kernel_size)
        return layer

    return nn.Sequential(*map(theirs, problem.layers())).to(problem.device)


def _step(problem: Problem, net: nn.Module, kl: Callable[[], Any]) -> Step:
    """A step on N/B times the batch's cross-entropy plus the peer's KL."""
    scale, x, y = problem.scale, problem.x, problem.y
    return training_step(net, lambda: scale * F.cross_entropy(net(x), y, reduction="sum") + kl())


@contender("cplxmodule, ARD layers", "cplxmodule")
def cplxmodule_ard(problem: Problem) -> Step:
    from cplxmodule.nn.relevance import Conv2dARD, LinearARD, penalties

    net = bayesian_network(problem, LinearARD, Conv2dARD)
    return _step(problem, net, lambda: sum(penalties(net)))


@contender("pytorch-ard", "torch_ard")
def pytorch_ard(problem: Problem) -> Step:
    from torch_ard import Conv2dARD, LinearARD, get_ard_reg

    net = bayesian_network(problem, LinearARD, Conv2dARD)
    return _step(problem, net, lambda: get_ard_reg(net))


@contender("torchbnn", "torchbnn")
def torch_bnn(problem: Problem) -> Step:
    import torchbnn

    net = bayesian_network(problem, partial(torchbnn.BayesLinear, 0.0, 0.1), partial(torchbnn.BayesConv2d, 0.0, 0.1))
    kl = torchbnn.BKLLoss(reduction="sum", last_layer_only=False)
    return _step(problem, net, lambda: kl(net))


def _bayesian_torch(kind: str) -> Callable[[Problem], Step]:
    def make(problem: Problem) -> Step:
        from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss

        net = problem.net()
        settings = {"prior_mu": 0.0, "prior_sigma": 1.0, "posterior_mu_init": 0.0, "posterior_rho_init": -3.0}
        with contextlib.redirect_stdout(io.StringIO()):
            dnn_to_bnn(net, {**settings, "type": kind, "moped_enable": False, "moped_delta": 0.5})
        net = net.to(problem.device)
        return _step(problem, net, lambda: get_kl_loss(net))

    return make


for _kind in ("Reparameterization", "Flipout"):
    contender(f"bayesian-torch, {_kind.lower()}", "bayesian_torch")(_bayesian_torch(_kind))


@contender("blitz", "blitz")
def blitz(problem: Problem) -> Step:
    from blitz.losses import kl_divergence_from_nn
    from blitz.modules import BayesianConv2d, BayesianLinear

    net = bayesian_network(problem, BayesianLinear, BayesianConv2d)
    return _step(problem, net, lambda: kl_divergence_from_nn(net))


@contender("torch-uncertainty", "torch_uncertainty")
def torch_uncertainty(problem: Problem) -> Step:
    from torch_uncertainty.layers.bayesian import BayesConv2d, BayesLinear

    net = bayesian_network(problem, BayesLinear, BayesConv2d)
    layers = [layer for layer in net if isinstance(layer, BayesLinear | BayesConv2d)]
    return _step(problem, net, lambda: sum(layer.log_variational_posterior - layer.log_prior for layer in layers))


@contender("TyXe, local reparameterisation", "tyxe")
def tyxe_local(problem: Problem) -> Step:
    import tyxe

    net = problem.net().to(problem.device)
    prior = tyxe.priors.IIDPrior(dist.Normal(torch.zeros((), device=problem.device), torch.ones((), device=problem.device)))
    likelihood = tyxe.likelihoods.Categorical(dataset_size=problem.num_data)
    bayesian = tyxe.VariationalBNN(net, prior, likelihood, tyxe.guides.AutoNormal)
    svi = SVI(bayesian.model, bayesian.guide, pyro.optim.Adam({"lr": 1e-3, "fused": True}), TraceMeanField_ELBO())

    def step() -> None:
        with tyxe.poutine.local_reparameterization():
            svi.step(problem.x, problem.y)

    return step


@contender("plain Pyro, TraceMeanField_ELBO")
def plain_pyro(problem: Problem) -> Step:
    """The whole hierarchy by hand, as a user of Pyro writes it: weights sampled, pyro.optim, Pyro's validation on."""
    net = problem.net().to(problem.device)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    weights = {name: value.clone() for name, value in net.named_parameters() if name.endswith("weight")}
    biases = {name: value.clone() for name, value in net.named_parameters() if name not in weights}

    def model(x: Tensor, y: Tensor) -> None:
        state = {name: pyro.param(name, start) for name, start in biases.items()}
        for name, start in weights.items():
            event = start.dim()
            zero = torch.zeros_like(start)
            gamma = pyro.sample(f"gamma.{name}", dist.Uniform(zero, zero + 1e6).to_event(event))
            state[name] = pyro.sample(name, dist.Normal(zero, gamma.sqrt()).to_event(event))
        logits = torch.func.functional_call(net, state, (x,))
        with pyro.plate("data", problem.num_data, subsample=x):
            pyro.sample("y", dist.Categorical(logits=logits), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        for name, start in weights.items():
            loc = pyro.param(f"loc.{name}", start)
            scale = pyro.param(f"log_var.{name}", torch.full_like(start, -10.0)).mul(0.5).exp()
            pyro.sample(f"gamma.{name}", dist.Delta(loc.square() + scale.square(), event_dim=start.dim()))
            pyro.sample(name, dist.Normal(loc, scale).to_event(start.dim()))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3, "fused": True}), TraceMeanField_ELBO())
    return lambda: svi.step(problem.x, problem.y)


def _numpyro(local: bool) -> Callable[[Problem], Step]:
    def make(problem: Problem) -> Step:
        import jax

        from examples.benchmarks.numpyro_step import numpyro_step

        if problem.device.type == "cuda" and jax.default_backend() != "gpu":
            raise Unfit("jax sees no GPU")
        return numpyro_step(problem, local)

    return make


for _local, _name in ((True, "local"), (False, "weights")):
    contender(f"NumPyro, jit, {_name}", "numpyro")(_numpyro(_local))
