"""The phases of a recipe as they are asked for, without training."""

from pathlib import Path

import torch

from examples.paper import dense
from examples.paper.cell import Cell, Job
from examples.paper.splits import Splits


def asked(monkeypatch, module, method, table, **changes):
    """What a method asks of ``plain.train`` for each phase, and what it finds; its network stays as it begins."""
    phases = []

    def train(net, job, **settings):
        phases.append({"net": net, **settings, "made": settings["optimizer"](net)})
        return []

    for part in {module, dense}:
        monkeypatch.setattr(part, "train_plain", train)
    x, y = torch.randn(60, *((1, 28, 28) if table.data == "mnist" else (3, 32, 32))), torch.arange(60) % 10
    made = table.methods[method]
    size = "lenet-300-100" if "lenet-300-100" in made.recipes else next(iter(made.recipes))
    recipe = {**made.recipes[size], "batch_size": 25, **changes}
    (found,) = made.train([Job(Cell(table.name, method, size, 0), recipe, Splits(x, y, x, y), Path())])
    return phases, recipe, found
