"""Runs the cells of a table that have not been run, and renders what has: the one program under table1.py to table5.py.

It may be killed at any moment and started again, on this machine twice at once as well: a cell goes on from its last
epoch, and is run by one runner only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import pyro
import torch
from tqdm import tqdm

import pyro_vbd as vbd
from examples.paper.cell import Cell, Job, Table
from examples.paper.options import configuration, parse, wanted
from examples.paper.rendering import render
from examples.paper.results import Results
from examples.paper.splits import Splits, load_splits

__all__ = ["main", "run_cells"]

logger = logging.getLogger(__name__)


def run_cells(table: Table, options: argparse.Namespace, position: int = 0) -> int:
    """Run every wanted cell that nobody has run or is at work on; the number of cells that failed.

    Raises:
        ValueError: if a record was made by another configuration than the one that is asked for.
    """
    pyro.enable_validation(False)
    torch.set_num_threads(options.threads)
    results = Results(options.results, table.name)
    data: Splits | None = None
    failed = 0
    for group in groups(table, results, options):
        with ExitStack() as claims:
            with results.grouping():  # runners that start together would each take a part
                cells = [cell for cell in group if claims.enter_context(results.claim(cell))]
            if not cells:
                continue
            try:
                data = data or data_of(table, options)
                for cell, record in zip(cells, run_together(table, cells, data, options, position), strict=True):
                    results.add(cell, record)
                for cell in cells:  # its checkpoints are of no more use
                    shutil.rmtree(work_folder(cell, configuration(table, cell, options), options), ignore_errors=True)
            except Exception:
                logger.exception("%s failed; the other cells go on", ", ".join(map(str, cells)))
                failed += len(cells)
    return failed


def groups(table: Table, results: Results, options: argparse.Namespace) -> list[list[Cell]]:
    """The wanted cells that have not run, those together that are trained side by side.

    Raises:
        ValueError: if a record was made by another configuration than the one that is asked for.
    """
    done = results.records()
    found: list[list[Cell]] = []
    latest: dict[tuple[str, str], list[Cell]] = {}
    for cell in wanted(table, options):
        check_configuration(table, cell, results, options)
        if cell in done:
            continue
        row = cell.method, cell.size
        if row in latest and table.methods[cell.method].members and len(latest[row]) < options.members:
            latest[row].append(cell)
        else:
            latest[row] = [cell]
            found.append(latest[row])
    return found


def data_of(table: Table, options: argparse.Namespace) -> Splits:
    """The table's data, loaded when the first cell needs them; the program ends if they are not to be had."""
    try:
        return load_splits(table.data, options.data_dir, options.selection, options.device)
    except (OSError, RuntimeError) as error:
        raise SystemExit(
            f"the data of table {table.name}, {table.data}, are neither in {options.data_dir} nor to be fetched ({error}): "
            "pass --data-dir; until then its cells stay empty"
        ) from error


def check_configuration(table: Table, cell: Cell, results: Results, options: argparse.Namespace) -> None:
    """Refuse to take a record of another configuration for this cell's."""
    record = results.records().get(cell)
    ours = configuration(table, cell, options)
    if record is not None and record["configuration"] != ours:
        theirs = record["configuration"]
        differing = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        raise ValueError(
            f"{results.path} holds {cell} with { ({key: theirs.get(key) for key in differing}) }, where this run has "
            f"{ ({key: ours.get(key) for key in differing}) }: delete that line, or pass another --results"
        )


def work_folder(cell: Cell, recipe: Mapping[str, Any], options: argparse.Namespace) -> Path:
    """The folder of a cell's checkpoints: another one for another configuration, which could not go on from them."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return Path(options.work, f"{cell.slug}_{digest[:8]}")


def run_together(
    table: Table, cells: Sequence[Cell], data: Splits, options: argparse.Namespace, position: int
) -> list[dict[str, Any]]:
    """Train cells that differ in their seeds alone from where they were left, and make their records.

    ``"members"`` are the seeds that were trained together; the ``"seconds"`` of that are those of them all.
    """
    first = cells[0]
    recipe = configuration(table, first, options)
    title = " ".join(map(str, [first, *(f"and {cell.seed}" for cell in cells[1:])]))
    total = recipe["epochs"] * len(cells)
    with tqdm(total=total, desc=title, unit="epoch", position=position, disable=options.quiet) as bar:
        pyro.clear_param_store()
        pyro.set_rng_seed(first.seed)
        start = time.perf_counter()
        jobs = [Job(cell, recipe, data, work_folder(cell, recipe, options), options.compile, bar.update) for cell in cells]
        found = table.methods[first.method].train(jobs)
        bar.set_postfix_str(", ".join(f"error {metrics['error']:.2f}%" for metrics in found))
    took = time.perf_counter() - start
    return [
        {
            "seconds": round(metrics.pop("seconds", took), 1),
            "metrics": _rounded(metrics),
            "configuration": recipe,
            "device": device_name(options.device),
            "versions": {"pyro_vbd": vbd.__version__, "torch": torch.__version__, "pyro": pyro.__version__},
            "compiled": options.compile and table.methods[first.method].members,  # the others have no bound to compile
            "members": [cell.seed for cell in cells],
        }
        for metrics in found
    ]


def device_name(device: torch.device) -> str:
    """The device in words: a GPU's name, or the processor's kind with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"


def _rounded(value: Any) -> Any:
    """Numbers to six digits: a line is to be read and committed."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main(program: str, arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of a program's table, and render all tables that have records.

    Args:
        program: name of a module of this folder with its ``TABLES``.
        arguments: of the command line; those of the process by default.
    """
    tables = {table.name: table for table in import_module(f"examples.paper.{program}").TABLES}
    options = parse(tables, arguments)
    table = tables[options.table]
    if options.jobs > 1:
        if groups(table, Results(options.results, table.name), options):  # what is wrong is said once, and here
            data_of(table, options)  # fetched by one process, where they have to be
        failed = run_jobs(program, options)
    else:
        failed = run_cells(table, options)
    render(options.results, options.readme)
    print(f"{len(Results(options.results, table.name).records())} cells in {options.results}; tables in {options.readme}")
    if failed:
        sys.exit(f"{failed} cells failed: see above")


def run_jobs(program: str, options: argparse.Namespace) -> int:
    """Run the cells in processes that share them, and end with this one; the number of cells that failed.

    A process that dies, for want of memory say, counts as one.
    """
    context = multiprocessing.get_context("spawn")
    shares = [(program, options, position) for position in range(options.jobs)]
    workers = [context.Process(target=_work, args=share, daemon=True) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    codes = [worker.exitcode for worker in workers]
    return sum(code if code > 0 else 1 for code in codes if code)  # below 0: the signal that ended it


def _work(program: str, options: argparse.Namespace, position: int) -> None:
    (table,) = (t for t in import_module(f"examples.paper.{program}").TABLES if t.name == options.table)
    sys.exit(min(run_cells(table, options, position), 255))  # what an exit status holds
