"""A table whose cells take no time: what is trained is a counter."""

import argparse
import os
import time
from pathlib import Path

from examples.paper.cell import Cell, Column, Job, Method, Table, one_by_one
from examples.paper.options import parse


@one_by_one
def train(job: Job) -> dict:
    log = os.environ.get("TOY_LOG")
    if log:
        with open(log, "a") as file:
            file.write(f"{job.cell.slug}\n")
        time.sleep(0.05)
    if job.cell.method == "broken":
        raise FloatingPointError("on purpose")
    job.tick(job.recipe["epochs"])
    return {"error": 1.0 + job.cell.seed, "layers": [10, 20 + job.cell.seed], "seconds": 2.0}


def table(methods=("a", "b"), sizes=("1", "2"), columns=None, paper=None, epochs=3, name="toy") -> Table:
    recipes = {size: {"epochs": epochs} for size in sizes}
    return Table(
        name,
        "A toy",
        "mnist",
        sizes,
        {name: Method(name.upper(), train, recipes, paper or {}) for name in methods},
        columns or {"error": Column("error %")},
        "A note.",
    )


def options(tables: Table, folder: Path, *arguments: str) -> argparse.Namespace:
    return parse({tables.name: tables}, ["--results", str(folder / "results"), "--work", str(folder / "work"),
                                        "--data-dir", str(folder / "data"), "--quiet", *arguments])  # fmt: skip


def cell(method="a", size="1", seed=0, selection="last") -> Cell:
    return Cell("toy", method, size, seed, selection)
