"""Who takes a step: a registry of small functions, and those of plain PyTorch and of this library.

Each makes a network of its own for a problem and returns a function that takes one step of Adam (fused, as everybody's).
A peer is one more function under :func:`contender`, with the package that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyro_vbd as vbd
from examples.benchmarks.problems import Problem

__all__ = ["CONTENDERS", "Contender", "Unfit", "adam", "contender", "training_step"]

#: Takes one step of training; called again and again.
Step = Callable[[], object]


class Unfit(Exception):
    """A contender cannot take part, and why."""


@dataclass(frozen=True)
class Contender:
    """One line of the table."""

    name: str
    make: Callable[[Problem], Step]
    package: str | None

    def step(self, problem: Problem) -> Step:
        """Its step on a problem.

        Raises:
            Unfit: where its package is missing, or does not work here.
        """
        if self.package is not None and find_spec(self.package) is None:
            raise Unfit(f"{self.package} is not installed (pip install 'pyro-vbd[bench]')")
        try:
            step = self.make(problem)
            step()
        except (ImportError, AttributeError, NotImplementedError) as error:
            raise Unfit(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
        return step


#: By name, in the order of the table.
CONTENDERS: dict[str, Contender] = {}


def contender(name: str, package: str | None = None) -> Callable[[Callable[[Problem], Step]], Callable[[Problem], Step]]:
    """Register a function that makes a step.

    Args:
        name: what the table calls it.
        package: the package that it imports; where that is missing it is skipped.
    """

    def register(make: Callable[[Problem], Step]) -> Callable[[Problem], Step]:
        CONTENDERS[name] = Contender(name, make, package)
        return make

    return register


def adam(parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The optimizer of all who train by torch."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def training_step(module: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """The usual three lines."""
    optimizer = adam([parameter for parameter in module.parameters() if parameter.requires_grad])

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


# --- the same network without a posterior ----------------------------------------------------------------------------

#: The line that all others are measured by.
PLAIN = "plain network"


@contender(PLAIN)
def plain(problem: Problem) -> Step:
    net = problem.net().to(problem.device)
    return training_step(net, lambda: F.cross_entropy(net(problem.x), problem.y))


@contender("plain network, torch.compile")
def plain_compiled(problem: Problem) -> Step:
    net = problem.net().to(problem.device)
    optimizer = adam(list(net.parameters()))
    loss = torch.compile(
        lambda x, y: F.cross_entropy(net(x), y), mode="reduce-overhead" if problem.device.type == "cuda" else None
    )

    def step() -> None:
        optimizer.zero_grad()
        loss(problem.x, problem.y).backward()
        optimizer.step()

    return step


@contender("plain network, CUDA graph")
def plain_recorded(problem: Problem) -> Step:
    """The whole step, Adam's part too, recorded and launched at one go."""
    if problem.device.type != "cuda":
        raise Unfit("CUDA graphs are a GPU's")
    net = problem.net().to(problem.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(problem.x), problem.y).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        step()
    # a recording does not keep alive what it works on
    return lambda kept=(net, optimizer): recording.replay()


# --- the method without any library ----------------------------------------------------------------------------------


class HandWritten(nn.Module):
    """A linear map or convolution with local reparameterisation, as one writes it without any library."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.apply_map = F.linear if isinstance(layer, nn.Linear) else F.conv2d
        self.loc, self.bias = nn.Parameter(layer.weight.detach().clone()), nn.Parameter(layer.bias.detach().clone())
        self.log_var = nn.Parameter(torch.full_like(self.loc, -10.0))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.apply_map(x, self.loc, self.bias)
        variance = self.apply_map(x * x, self.log_var.exp())
        return mean + torch.sqrt(variance + 1e-8) * torch.randn_like(mean)

    def kl(self) -> Tensor:
        return 0.5 * torch.log1p(self.loc**2 * torch.exp(-self.log_var)).sum()


@contender("hand-written layers")
def hand_written(problem: Problem) -> Step:
    layers = [HandWritten(m) if isinstance(m, nn.Linear | nn.Conv2d) else m for m in problem.layers()]
    net = nn.Sequential(*layers)
    bayesian = [layer for layer in layers if isinstance(layer, HandWritten)]

    def loss() -> Tensor:
        fit = problem.scale * F.cross_entropy(net(problem.x), problem.y, reduction="sum")
        return fit + sum(layer.kl() for layer in bayesian)

    return training_step(net, loss)


# --- this library ----------------------------------------------------------------------------------------------------


def _loss(problem: Problem, estimator: str) -> pyro.infer.elbo.ELBOModule:
    model = vbd.Classifier(problem.net(), vbd.priors.GaussianUniform(), problem.num_data).to(problem.device)
    return vbd.VBD_ELBO(estimator=estimator)(model, vbd.VBDGuide(model))


def _compiled(estimator: str) -> Callable[[Problem], Step]:
    def make(problem: Problem) -> Step:
        loss = vbd.compile(_loss(problem, estimator))
        optimizer = adam([parameter for parameter in loss.parameters() if parameter.requires_grad])
        # values are looked at in the first pass through the data alone, as fit does
        return lambda: loss.update(optimizer, problem.x, problem.y, check=False)

    return make


@contender("pyro_vbd, eager")
def eager(problem: Problem) -> Step:
    loss = _loss(problem, "local")
    return training_step(loss, lambda: loss(problem.x, problem.y))


@contender("pyro_vbd, SVI and pyro.optim")
def through_svi(problem: Problem) -> Step:
    model = vbd.Classifier(problem.net(), vbd.priors.GaussianUniform(), problem.num_data).to(problem.device)
    optimizer = pyro.optim.Adam({"lr": 1e-3, "fused": True})
    svi = pyro.infer.SVI(model, vbd.VBDGuide(model), optimizer, vbd.VBD_ELBO())
    return lambda: svi.step(problem.x, problem.y)


for _estimator in ("local", "weights", "flipout"):
    contender(f"pyro_vbd, compiled, {_estimator}")(_compiled(_estimator))
