"""Which estimator of the likelihood's gradient is better: the time that each takes to a given validation loss.

    python examples/benchmarks/time_to_loss.py [--data mnist] [--net lenet] [--epochs 30] [--seeds 3] [--device cuda]

Local reparameterisation has the least noise, and takes two convolutions where a plain network takes one; a draw of the
weights, or flipout, takes about one; "auto" is the first in dense layers and the second in convolutions. Each trains the
same network from the same start by the compiled step, and after each epoch the validation loss is that at the posterior
medians. Seconds are of training steps alone, without the first, which compiles; the estimators take their epochs in turn,
so that a noisy machine slows all of them. The loss that all have to reach is, by default, the highest of their lowest ones:
all of them reach it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pyro
import torch
from torch import nn
from tqdm import tqdm

import pyro_vbd as vbd
from examples.arguments import at_least_one
from examples.benchmarks.contenders import adam
from examples.benchmarks.figures import Panel, curves
from examples.benchmarks.records import save_record
from examples.benchmarks.timing import machine, wait
from examples.data import LOADERS, Split, load
from examples.reporting import spread, write
from models import lenet_5_caffe, mlp
from pyro_vbd.training.evaluation import negative_log_likelihood

ESTIMATORS = ("auto", "local", "weights", "flipout")


def lenet(images: torch.Size, classes: int) -> nn.Sequential:
    """LeNet-5-Caffe with named convolutions; on small images, with 3x3 kernels and one pooling."""
    if tuple(images) == (1, 28, 28):
        names = ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "dense1", "relu3", "dense2")  # fmt: skip
        return nn.Sequential(OrderedDict(zip(names, lenet_5_caffe(), strict=True)))
    channels, height, width = images
    flat = 32 * ((height - 4) // 2) * ((width - 4) // 2)
    layers = {
        "conv1": nn.Conv2d(channels, 16, 3), "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(16, 32, 3), "relu2": nn.ReLU(), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten(),
        "dense1": nn.Linear(flat, 100), "relu3": nn.ReLU(), "dense2": nn.Linear(100, classes),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def dense(images: torch.Size, classes: int) -> nn.Sequential:
    """Two hidden layers of 300 and 100 units."""
    return mlp(math.prod(images), (300, 100), classes)


NETS: dict[str, Callable[[torch.Size, int], nn.Sequential]] = {"lenet": lenet, "dense": dense}


def train(estimator: str, split: Split, seed: int, options: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Seconds of training and the validation loss, at the end of each epoch."""
    pyro.set_rng_seed(seed)  # the same start for each estimator
    net = NETS[options.net](split.x.shape[1:], int(split.y.max()) + 1)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), len(split.x)).to(options.device)
    loss = vbd.compile(vbd.VBD_ELBO(estimator=estimator)(model, vbd.VBDGuide(model)))
    optimizer = adam([parameter for parameter in loss.parameters() if parameter.requires_grad])
    data = vbd.Batches(split.x, split.y, batch_size=options.batch)
    validation = vbd.Batches(split.x_eval, split.y_eval, batch_size=1000, shuffle=False)
    seconds, compiled = 0.0, False
    for epoch in range(options.epochs):
        loss.elbo.kl_weight = min(1.0, epoch / options.warm_up) if options.warm_up else 1.0
        for x, y in data:
            if len(x) < options.batch:  # the last one of a pass would be compiled for itself
                continue
            wait(options.device)
            start = time.perf_counter()
            loss.update(optimizer, x, y, check=False)
            wait(options.device)
            seconds += (time.perf_counter() - start) * compiled
            compiled = True
        yield seconds, negative_log_likelihood(model, loss.guide, validation)


def time_to(run: dict[str, list[float]], target: float) -> float:
    """Seconds until the first epoch with a loss no higher than the target; NaN where there is none."""
    return next((s for s, loss in zip(run["seconds"], run["losses"], strict=True) if loss <= target), math.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=LOADERS, default="digits")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--net", choices=NETS, default="lenet")
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--target", type=float, help="the validation loss to reach, in nats per datum")
    parser.add_argument("--epochs", type=at_least_one, default=30)
    parser.add_argument("--warm-up", type=int, default=10, help="epochs in which the weight of the KL rises from 0 to 1")
    parser.add_argument("--batch", type=at_least_one, default=100)
    parser.add_argument("--seeds", type=at_least_one, default=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    split = load(options.data, options.data_dir, validation=True)
    split = Split(*(part.to(options.device) for part in vars(split).values()))
    head = f"{options.net} on {options.data}, batch {options.batch}, {machine(options.device)}"
    print(head)
    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in options.estimators}
    with tqdm(total=options.seeds * options.epochs, desc="epochs of all") as bar:
        for seed in range(options.seeds):
            training = [train(name, split, seed, options) for name in runs]
            epochs = []
            for ends in zip(*training, strict=True):
                epochs.append(ends)
                bar.update()
            for found, ends in zip(runs.values(), zip(*epochs, strict=True), strict=True):
                seconds, losses = zip(*ends, strict=True)
                found.append({"seconds": list(seconds), "losses": list(losses)})
    lowest = {name: [min(run["losses"]) for run in found] for name, found in runs.items()}
    target = options.target if options.target is not None else max(max(values) for values in lowest.values())
    print(f"\n{'':<40}{f's to a loss of {target:.4g}':>28}{'lowest loss':>24}{'ms a step':>12}")
    steps = options.epochs * (len(split.x) // options.batch) - 1
    for name, found in runs.items():
        times = [time_to(run, target) for run in found]
        cost = min(run["seconds"][-1] for run in found) / max(steps, 1)
        print(f"  {name:<38}{spread(times):>28}{spread(lowest[name], 4):>24}{1e3 * cost:>12.2f}")
    panel = {name: (found[0]["seconds"], found[0]["losses"]) for name, found in runs.items()}
    by_epoch = {name: (list(range(1, options.epochs + 1)), found[0]["losses"]) for name, found in runs.items()}
    label = "validation loss (nats per datum)"
    picture = curves(
        [[Panel("By time", "seconds of training", label, panel, "y"), Panel("By epoch", "epochs", label, by_epoch, "y")]],
        f"Estimators of the gradient\n{head}",
    )
    file = f"time_to_loss-{options.data}-{options.net}"
    write(options.out / f"{file}.png", lambda path: picture.savefig(path, dpi=110, format="png"))
    save_record(options.out / f"{file}.json", head, target=target, steps=steps, runs=runs)
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
