"""What a table consists of: its methods and sizes, and the cells that these and the seeds make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from examples.paper.splits import Splits

__all__ = ["Cell", "Column", "Job", "Method", "Table", "one_by_one"]


@dataclass(frozen=True)
class Cell:
    """One run: a method on a network of one size, from one seed.

    ``selection`` is ``"last"``, a run on the whole training set, or ``"validation"``, one that holds a sixth of it out.
    """

    table: str
    method: str
    size: str
    seed: int
    selection: str = "last"

    @property
    def slug(self) -> str:
        """A file name of its own."""
        return "_".join([self.table, self.method, self.size, f"seed{self.seed}", self.selection]).replace("/", "-")

    def __str__(self) -> str:
        return f"{self.table} {self.method} {self.size} seed {self.seed}" + (" picked" if self.selection != "last" else "")


@dataclass(frozen=True)
class Job:
    """What a method is given to train one cell with."""

    cell: Cell
    #: The method's configuration for this size: numbers and strings.
    recipe: Mapping[str, Any]
    data: Splits
    #: Folder of the cell's checkpoints.
    folder: Path
    #: Whether to train through ``fit(..., compile=True)``.
    compile: bool = False
    #: Called with the number of epochs that have passed since it was last called.
    tick: Callable[[int], Any] = lambda epochs: None

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return self.data.x.device

    def checkpoint(self, phase: str) -> Path:
        """Where a phase of the training keeps its state."""
        return self.folder / f"{phase}.ckpt"


#: Trains cells that differ in their seeds alone, and returns the metrics of each; with held-out data also ``"picked"``,
#: those at the epoch they chose.
Train = Callable[[Sequence[Job]], list[dict[str, Any]]]


def one_by_one(train: Callable[..., dict[str, Any]]) -> Callable[..., list[dict[str, Any]]]:
    """A method that trains one cell, as one that trains several: in turn."""

    @wraps(train)
    def train_each(jobs: Sequence[Job], **settings: Any) -> list[dict[str, Any]]:
        return [train(job, **settings) for job in jobs]

    return train_each


@dataclass(frozen=True)
class Method:
    """A row of a table."""

    title: str
    train: Train
    #: What the training depends on, by size; every recipe has ``"epochs"``, over all phases.
    recipes: Mapping[str, Mapping[str, Any]]
    #: The paper's figures: by size, by column.
    paper: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Where the method was first described, and what was not to be found out.
    source: str = ""
    #: Whether seeds are trained side by side, where that is asked for.
    members: bool = False


@dataclass(frozen=True)
class Column:
    """A metric as a table shows it."""

    title: str
    #: Digits after the point, of the mean and of the standard deviation.
    digits: int = 2


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    title: str
    #: Name of the data set (see examples/data.py).
    data: str
    sizes: Sequence[str]
    methods: Mapping[str, Method]
    columns: Mapping[str, Column]
    #: What a reader must know: the protocol, and what the paper leaves open.
    note: str

    def cells(self, seeds: Sequence[int], selection: str = "last") -> list[Cell]:
        """All cells, seed by seed, so that every row has its first seed before any has its second."""
        return [
            Cell(self.name, name, size, seed, selection)
            for seed in seeds
            for size in self.sizes
            for name, method in self.methods.items()
            if size in method.recipes
        ]
