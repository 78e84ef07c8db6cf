"""The tables as text: what was measured beside what the paper prints, and blanks where nothing has been run."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from examples.paper.cell import Cell, Column, Table
from examples.paper.results import Results

__all__ = ["PROGRAMS", "render", "spread", "table_text"]

#: The programs, each with its ``TABLES``.
PROGRAMS = ("table1", "table2", "table3", "table4", "table5")

HEAD = """# The paper's tables, run

Tables 1 to 5 of Liu et al., *Variational Bayesian Dropout with a Hierarchical Prior*, CVPR 2019. The paper ran its own
rows of Tables 4 and 5 and copied the others from earlier papers; here every row is run.

Each entry is the mean over seeds and the standard deviation of a run, "±", with the number of seeds in brackets; below it
or beside it, in italics, the paper's figure. A blank has not been run. *last* is the last epoch of a run on the whole
training set; *picked* the epoch with the least error on held-out data, in a run that holds a sixth of the training set
out. Nothing is chosen on test data. With fewer than five seeds no difference here is a claim.

The lines in `results/` hold every run: metrics, configuration, versions, device and seconds. `python
examples/paper/table1.py --help` (to `table5.py`) says how to run what is missing. This file is written by the programs.
"""


def render(results: Path, target: Path) -> None:
    """Write all tables of all programs, from the records in a folder."""
    tables = [table for program in PROGRAMS for table in import_module(f"examples.paper.{program}").TABLES]
    text = "\n".join([HEAD, *(table_text(table, Results(results, table.name).records()) for table in tables)])
    temporary = target.with_name(f".{target.name}")
    temporary.write_text(text)
    os.replace(temporary, target)


def table_text(table: Table, records: Mapping[Cell, Mapping[str, Any]]) -> str:
    """One table: a row for each method and, where there is one column, all sizes across; else a block for each size."""
    parts = [f"## Table {table.name}. {table.title}\n"]
    if len(table.columns) == 1:
        (key,) = table.columns
        across = [(size, size, key) for size in table.sizes]
        parts.append(_grid(table, records, across))
    else:
        for size in table.sizes:
            parts.append(f"### {size}\n")
            parts.append(_grid(table, records, [(column.title, size, key) for key, column in table.columns.items()]))
    if table.note:
        parts.append(table.note + "\n")
    return "\n".join(parts)


def _grid(table: Table, records: Mapping[Cell, Mapping[str, Any]], across: Sequence[tuple[str, str, str]]) -> str:
    """Rows of methods; columns of (heading, size, metric)."""
    lines = ["| | " + " | ".join(heading for heading, _, _ in across) + " |", "|---" * (len(across) + 1) + "|"]
    for name, method in table.methods.items():
        if not any(size in method.recipes or size in method.paper for _, size, _ in across):
            continue
        for selection in ("last", "validation"):
            cells = [_entries(records, name, size, selection) for _, size, _ in across]
            if selection == "validation" and not any(cells):
                continue
            entries = []
            for (_, size, key), found in zip(across, cells, strict=True):
                measured = spread([metrics[key] for metrics in found if key in metrics], table.columns[key])
                printed = method.paper.get(size, {}).get(key) if selection == "last" else None
                entries.append(
                    " ".join(part for part in (measured, f"*{_joined(printed)}*" if printed is not None else "") if part)
                )
            title = method.title if selection == "last" else f"{method.title}, picked"
            lines.append(f"| {title} | " + " | ".join(entries) + " |")
    return "\n".join(lines) + "\n"


def _entries(records: Mapping[Cell, Mapping[str, Any]], method: str, size: str, selection: str) -> list[Mapping[str, Any]]:
    """The metrics of all seeds of a method and size; in runs with held-out data those of the picked epoch."""
    found = [
        record["metrics"]
        for cell, record in records.items()
        if (cell.method, cell.size, cell.selection) == (method, size, selection)
    ]
    return [metrics["picked"] for metrics in found] if selection == "validation" else found


def spread(values: Sequence[Any], column: Column) -> str:
    """Mean, standard deviation and number of seeds; of lists, element by element, joined by dashes."""
    if not values:
        return ""
    if isinstance(values[0], list | tuple):
        means = [statistics.mean(parts) for parts in zip(*values, strict=True)]
        return f"{_joined([f'{mean:.{column.digits}f}' for mean in means])} ({len(values)})"
    mean = f"{statistics.mean(values):.{column.digits}f}"
    deviation = f" ± {statistics.stdev(values):.{column.digits}f}" if len(values) > 1 else ""
    return f"{mean}{deviation} ({len(values)})"


def _joined(value: Any) -> str:
    return "-".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
