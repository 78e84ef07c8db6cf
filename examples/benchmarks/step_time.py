"""What one training step costs: through Pyro with this library, hand-written in plain PyTorch, and deterministic.

    python examples/benchmarks/step_time.py [--nets mlp lenet5] [--rounds 40] [--device cpu]

Every round times one burst of steps of each contender in turn, so that a noisy machine slows them all; the table holds
medians over rounds and their ratio to the hand-written step.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

import pyro_vbd as vbd

NUM_DATA, BATCH = 60_000, 100


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28)),
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {"mlp": (mlp, (784,)), "lenet5": (lenet5, (28, 28))}


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


def deterministic(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def hand_written(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    layers = [HandWritten(m) if isinstance(m, nn.Linear | nn.Conv2d) else m for m in net]
    bayesian = nn.Sequential(*layers).to(x.device)
    kl_layers = [layer for layer in layers if isinstance(layer, HandWritten)]
    optimizer = torch.optim.Adam(bayesian.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss = NUM_DATA / BATCH * F.cross_entropy(bayesian(x), y, reduction="sum") + sum(m.kl() for m in kl_layers)
        loss.backward()
        optimizer.step()

    return step


def through_pyro(net: nn.Module, x: Tensor, y: Tensor, validate: bool = True) -> Callable[[], None]:
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=NUM_DATA)
    loss = vbd.VBD_ELBO()(model, vbd.VBDGuide(model)).to(x.device)
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with pyro.validation_enabled(validate):
            loss(x, y).backward()
        optimizer.step()

    return step


def through_svi(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=NUM_DATA).to(x.device)
    svi = pyro.infer.SVI(model, vbd.VBDGuide(model), pyro.optim.Adam({"lr": 1e-3, "fused": True}), vbd.VBD_ELBO())
    return lambda: svi.step(x, y)


CONTENDERS: dict[str, Callable[[nn.Module, Tensor, Tensor], Callable[[], None]]] = {
    "hand-written": hand_written,
    "deterministic": deterministic,
    "pyro_vbd, torch Adam": through_pyro,
    "pyro_vbd, torch Adam, validation off": lambda net, x, y: through_pyro(net, x, y, validate=False),
    "pyro_vbd, SVI and pyro.optim": through_svi,
}


def measure(name: str, rounds: int, burst: int, device: torch.device) -> dict[str, float]:
    """Median seconds per step of each contender."""
    build, shape = NETS[name]
    torch.manual_seed(0)
    x, y = torch.rand(BATCH, *shape, device=device), torch.randint(10, (BATCH,), device=device)
    steps = {contender: make(build().to(device), x, y) for contender, make in CONTENDERS.items()}
    times: dict[str, list[float]] = {contender: [] for contender in steps}
    for turn in trange(rounds + 2, desc=name):
        for contender, step in steps.items():
            start = time.perf_counter()
            for _ in range(burst):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:  # the first rounds warm up
                times[contender].append((time.perf_counter() - start) / burst)
    return {contender: statistics.median(values) for contender, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--burst", type=int, default=5, help="steps timed together")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    print(f"batch {BATCH}, {options.device} ({platform.machine()}, {torch.get_num_threads()} threads), "
          f"torch {torch.__version__}, pyro {pyro.__version__}")  # fmt: skip
    for name in options.nets:
        medians = measure(name, options.rounds, options.burst, options.device)
        print(f"\n{name:<40}{'ms a step':>10}{'x hand-written':>16}{'x deterministic':>17}")
        for contender, seconds in medians.items():
            ratios = [seconds / medians[base] for base in ("hand-written", "deterministic")]
            print(f"  {contender:<38}{1e3 * seconds:>10.2f}{ratios[0]:>16.2f}{ratios[1]:>17.2f}")


if __name__ == "__main__":
    main()
