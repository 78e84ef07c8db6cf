"""The tables as text: what was measured beside what the paper prints, and blanks where nothing has been run."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from examples.paper.cell import Cell, Column, Table
from examples.paper.results import Results
from examples.reporting import write

__all__ = ["PROGRAMS", "render", "spread", "table_text"]

#: The programs, each with its ``TABLES``.
PROGRAMS = ("table1", "table2", "table3", "table4", "table5")

HEAD = """# The paper's tables, run

Tables 1 to 5 of Liu et al., *Variational Bayesian Dropout with a Hierarchical Prior*, CVPR 2019. The paper ran its own
rows of Tables 4 and 5 and copied the others from earlier papers; here every row has a program of its own.

An entry is the mean over seeds, after "±" the standard deviation of a single run, in brackets the number of seeds, and in
italics the paper's figure; a row or an entry without a mean has not been run. What is measured is the last epoch of a run
on the whole training set. In a row "picked", a sixth of the training set is held out, and the epoch is the one with the
least error on it. Nothing is chosen on test data. With fewer than five seeds no difference here is a claim.

The lines in `results/` hold every run: metrics, configuration, versions, device and seconds. `python
examples/paper/table1.py --help` (to `table5.py`) says how to run what is missing. This file is written by the programs.
"""


def render(results: Path, target: Path) -> None:
    """Write all tables of all programs, from the records in a folder."""
    tables = [table for program in PROGRAMS for table in import_module(f"examples.paper.{program}").TABLES]
    text = "\n".join([HEAD, *(table_text(table, Results(results, table.name).records()) for table in tables)])
    write(target, lambda path: path.write_text(text))


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
    if not records:
        parts.append("Nothing of this table has been run yet.\n")
    parts.append(_paragraph(table.note))
    sources = [f"{method.title}: {method.source}" for method in table.methods.values() if method.source]
    if sources:
        parts.append(_paragraph(f"Sources. {'; '.join(sources)}."))
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _grid(table: Table, records: Mapping[Cell, Mapping[str, Any]], across: Sequence[tuple[str, str, str]]) -> str:
    """Rows of methods; columns of (heading, size, metric)."""
    lines = ["| | " + " | ".join(heading for heading, _, _ in across) + " |", "|---" * (len(across) + 1) + "|"]
    for name, method in table.methods.items():
        last = [_entry(records, name, size, "last", key, table.columns[key]) for _, size, key in across]
        printed = [_printed(method.paper.get(size, {}).get(key), table.columns[key]) for _, size, key in across]
        entries = [" ".join(filter(None, pair)) for pair in zip(last, printed, strict=True)]
        lines.append(f"| {method.title} | " + " | ".join(entries) + " |")
        picked = [_entry(records, name, size, "validation", key, table.columns[key]) for _, size, key in across]
        if any(picked):
            lines.append(f"| {method.title}, picked | " + " | ".join(picked) + " |")
    return "\n".join(lines) + "\n"


def _entry(
    records: Mapping[Cell, Mapping[str, Any]], method: str, size: str, selection: str, key: str, column: Column
) -> str:
    """What was measured over all seeds; in runs with held-out data, at the picked epoch."""
    found = [r["metrics"] for c, r in records.items() if (c.method, c.size, c.selection) == (method, size, selection)]
    metrics = [m["picked"] for m in found] if selection == "validation" else found
    return spread([m[key] for m in metrics], column)


def _printed(figure: Any, column: Column) -> str:
    """The paper's figure, with the digits of the column."""
    if figure is None:
        return ""
    if isinstance(figure, list | tuple):
        return f"*{'-'.join(f'{part:g}' for part in figure)}*"
    return f"*{figure:.{column.digits}f}*" if isinstance(figure, float) else f"*{figure}*"


def spread(values: Sequence[Any], column: Column) -> str:
    """Mean, standard deviation and number of seeds; of lists, the means element by element, joined by dashes."""
    if not values:
        return ""
    if isinstance(values[0], list | tuple):
        means = [statistics.mean(parts) for parts in zip(*values, strict=True)]
        return f"{'-'.join(f'{mean:.{column.digits}f}' for mean in means)} ({len(values)})"
    mean = f"{statistics.mean(values):.{column.digits}f}"
    deviation = f" ± {statistics.stdev(values):.{column.digits}f}" if len(values) > 1 else ""
    return f"{mean}{deviation} ({len(values)})"
