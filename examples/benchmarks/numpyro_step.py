"""The step of the same objective in NumPyro, jitted as its SVI does it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from torch import nn

from examples.benchmarks.contenders import Step
from examples.benchmarks.problems import Problem

__all__ = ["numpyro_step"]

_LAYOUT = ("NCHW", "OIHW", "NCHW")


def numpyro_step(problem: Problem, local: bool) -> Step:
    """One jitted step of SVI with Adam.

    Args:
        problem: a sequence of linear layers, convolutions, ReLU, max-pooling and flattening.
        local: whether outputs are sampled, or weights.

    Raises:
        NotImplementedError: for another layer.
    """
    layers = list(problem.net())
    starts = {
        index: (jnp.asarray(layer.weight.detach().numpy()), jnp.asarray(layer.bias.detach().numpy()))
        for index, layer in enumerate(layers)
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    x, y = (jnp.asarray(np.asarray(value.cpu())) for value in (problem.x, problem.y))

    def model(x: Any, y: Any) -> None:
        values, kl = x, 0.0
        for index, layer in enumerate(layers):
            if index not in starts:
                values = _without_weights(layer, values)
                continue
            weight, start = starts[index]
            loc, bias = numpyro.param(f"loc.{index}", weight), numpyro.param(f"bias.{index}", start)
            log_var = numpyro.param(f"log_var.{index}", jnp.full_like(weight, -10.0))
            kl = kl + 0.5 * jnp.log1p(loc**2 * jnp.exp(-log_var)).sum()
            key = numpyro.prng_key()
            if local:
                mean, variance = _linear(layer, values, loc), _linear(layer, values**2, jnp.exp(log_var))
                values = mean + jnp.sqrt(variance + 1e-8) * jax.random.normal(key, mean.shape)
            else:
                values = _linear(layer, values, loc + jnp.exp(0.5 * log_var) * jax.random.normal(key, loc.shape))
            values = values + (bias if isinstance(layer, nn.Linear) else bias[:, None, None])
        numpyro.factor("kl", -kl)
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=problem.scale):  # a subsampling plate permutes N
            numpyro.sample("y", dist.Categorical(logits=values), obs=y)

    svi = SVI(model, lambda x, y: None, numpyro.optim.Adam(1e-3), Trace_ELBO())
    state = svi.init(jax.random.PRNGKey(0), x, y)
    update = jax.jit(svi.update)

    def step() -> None:
        nonlocal state
        state, loss = update(state, x, y)
        loss.block_until_ready()

    return step


def _linear(layer: nn.Module, values: Any, weight: Any) -> Any:
    if isinstance(layer, nn.Linear):
        return values @ weight.T
    return jax.lax.conv_general_dilated(values, weight, layer.stride, "VALID", dimension_numbers=_LAYOUT)


def _without_weights(layer: nn.Module, values: Any) -> Any:
    if isinstance(layer, nn.ReLU):
        return jax.nn.relu(values)
    if isinstance(layer, nn.Flatten):
        return values.reshape(len(values), -1)
    if isinstance(layer, nn.MaxPool2d):
        window = (1, 1, layer.kernel_size, layer.kernel_size)
        return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, window, "VALID")
    raise NotImplementedError(f"{type(layer).__name__} is not written for NumPyro here")
