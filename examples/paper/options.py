"""What every table's program is asked for: its options, the cells that they name, and what these are trained with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from examples.arguments import at_least_one
from examples.paper.cell import Cell, Table

__all__ = ["configuration", "parse", "wanted"]

HERE = Path(__file__).parent


def parse(tables: Mapping[str, Table], arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options that all programs have."""
    first = next(iter(tables.values()))
    parser = argparse.ArgumentParser(description=first.title, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--table", choices=tables, default=first.name, help="a protocol is a table of its own")
    add("--only", nargs="+", metavar="METHOD", help=f"patterns; methods: {', '.join(first.methods)}")
    add("--sizes", nargs="+", metavar="SIZE", help=f"patterns; sizes: {', '.join(first.sizes)}")
    add("--seeds", type=at_least_one, default=1, help="how many")
    add("--first-seed", type=int, default=0, help="the first of them")
    add(
        "--selection", choices=("last", "validation"), default="last", help="train on all data, or hold a sixth out to pick"
    )
    add("--device", type=torch.device, default=torch.device("cpu"))
    add("--jobs", type=at_least_one, default=1, help="cells at once, each in a process of its own")
    add(
        "--members",
        type=at_least_one,
        default=1,
        help="seeds trained side by side in variational rows; a killed group goes on with the same seeds",
    )
    add("--threads", type=int, default=1, help="of each process, on the CPU")
    add("--compile", action="store_true", help="train by fit(..., compile=True)")
    add("--epochs", type=at_least_one, help="instead of the recipe's, to try the program out")
    add(
        "--set", nargs="+", type=setting, default=[], metavar="KEY=VALUE",
        help="entries of the recipes in JSON, to tune them: with --selection validation, and --results of its own",
    )  # fmt: skip
    add("--data-dir", type=Path, default=Path("data"), help="where the data are or go to")
    add("--results", type=Path, default=HERE / "results", help="folder of the records")
    add(
        "--work",
        type=Path,
        default=Path("out/paper"),
        help="folder of the checkpoints of unfinished cells; one for each --results",
    )
    add("--readme", type=Path, help="where the tables are rendered; by default README.md beside the folder of the records")
    add("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    if (options.set or options.epochs) and options.results == HERE / "results":
        parser.error("--set and --epochs try other settings than the tables': pass a --results of their own")
    options.readme = options.readme or options.results.parent / "README.md"
    return options


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE as the two."""
    key, _, value = text.partition("=")
    return key, json.loads(value)  # argparse says which argument is none


def wanted(table: Table, options: argparse.Namespace) -> list[Cell]:
    """The cells that ``--only``, ``--sizes``, ``--seeds`` and ``--selection`` name."""
    cells = table.cells(range(options.first_seed, options.first_seed + options.seeds), options.selection)
    for what, patterns in (("method", options.only), ("size", options.sizes)):
        for pattern in patterns or ():
            if not any(fnmatchcase(getattr(cell, what), pattern) for cell in cells):
                known = sorted({getattr(cell, what) for cell in table.cells([0])})
                raise SystemExit(f"{pattern!r} is no {what} of table {table.name}: it has {', '.join(known)}")
        cells = [c for c in cells if not patterns or any(fnmatchcase(getattr(c, what), p) for p in patterns)]
    return cells


def configuration(table: Table, cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """What a cell is trained with: its recipe, with ``--epochs`` and ``--set`` in it.

    Raises:
        SystemExit: for an entry that the recipe does not have.
    """
    recipe = dict(table.methods[cell.method].recipes[cell.size])
    changes = dict(options.set) | ({"epochs": options.epochs} if options.epochs else {})
    if unknown := sorted(set(changes) - set(recipe)):
        raise SystemExit(f"{cell.method} of table {table.name} has no {', '.join(unknown)}: it has {', '.join(recipe)}")
    return json.loads(json.dumps(recipe | changes))  # as a record holds it
