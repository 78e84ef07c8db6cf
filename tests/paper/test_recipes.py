"""What a record says a cell was trained with is what it was trained with: every entry of a recipe is read."""

import pyro
import pytest
import torch

from examples.paper import table1, table2, table3, table4, table5
from examples.paper.cell import Cell, Job
from examples.paper.splits import Splits

TABLES = [table for module in (table1, table2, table3, table4, table5) for table in module.TABLES]
#: A row for each kind of recipe that it has: sizes may differ in their entries.
ROWS = [
    (table, name, size)
    for table in TABLES
    for name, method in table.methods.items()
    for size in {tuple(sorted(recipe)): size for size, recipe in method.recipes.items()}.values()
]


class Watched(dict):
    """A recipe that remembers which of its entries were asked for."""

    def __init__(self, recipe):
        super().__init__(recipe)
        self.read = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)


@pytest.mark.parametrize(("table", "method", "size"), ROWS, ids=lambda part: getattr(part, "name", part))
def test_every_entry_is_read(table, method, size, tmp_path, device):
    pyro.set_rng_seed(0)
    channels, pixels = (1, 28) if table.data == "mnist" else (3, 32)
    x, y = torch.randn(60, channels, pixels, pixels, device=device), torch.arange(60, device=device) % 10
    cell = Cell(table.name, method, size, 0)
    recipe = Watched({**table.methods[method].recipes[size], "epochs": 3, "batch_size": 30})
    table.methods[method].train([Job(cell, recipe, Splits(x, y, x, y), tmp_path)])
    assert not set(recipe) - recipe.read
