"""Write the tables of docs/scaling.md from the records of the benchmarks, without running anything.

Run it with ``python examples/benchmarks/render.py [--results DIR] [--page FILE] [--out FILE]``. A table stands between two
comments with the name of its record; the page's other lines stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.benchmarks.contenders import PLAIN
from examples.benchmarks.time_to_loss import time_to
from examples.reporting import spread, write

__all__ = ["TABLES", "filled"]

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, PAGE = DOCS / "benchmarks", DOCS / "scaling.md"

Record = Mapping[str, Any]
#: Values of a step by contender.
Measured = Mapping[str, Mapping[str, float]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ours(name: str) -> str:
    """Lines of this library stand out."""
    return f"**{name}**" if name.startswith("pyro_vbd") else name


def milliseconds(seconds: float) -> str:
    """Time of one step."""
    return f"{1e3 * seconds:.2f} ms"


def megabytes(count: float) -> str:
    """Memory of one step."""
    return f"{count / 1e6:.1f} MB"


def ratios(columns: Sequence[Measured], value: str, shown: Callable[[float], str]) -> list[list[str]]:
    """A row for each contender: multiples of the plain network's value, which has a row of its own values.

    Args:
        columns: values by contender.
        value: the name of one.
        shown: how the plain network's is written.
    """
    rows = []
    for name in dict.fromkeys(name for found in columns for name in found):
        times = [found.get(name, {}).get(value, math.nan) / found[PLAIN][value] for found in columns]
        cells = ["" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in times]
        rows.append([ours(name), *([shown(found[PLAIN][value]) for found in columns] if name == PLAIN else cells)])
    return rows


def step_time(record: Record) -> str:
    """Time by contender and network, and memory where it was measured."""
    nets = record["results"]
    columns = list(nets.values())
    head, rows = ["", *nets], ratios(columns, "seconds", milliseconds)
    if all("bytes" in found[PLAIN] for found in columns):
        head += [f"{net}, memory" for net in nets]
        rows = [[*time, *memory[1:]] for time, memory in zip(rows, ratios(columns, "bytes", megabytes), strict=True)]
    return table(head, rows)


def scaling(record: Record) -> str:
    """Time of a step by contender, for each width and each depth."""
    parts = []
    for axis, sizes in record["results"].items():
        rows = ratios([found["steps"] for found in sizes.values()], "seconds", milliseconds)
        parts.append(table([axis, *(f"{int(size):,}" for size in sizes)], rows))
    return "\n\n".join(parts)


def members(record: Record) -> str:
    """A step of all members against as many single ones, by network."""
    rows = []
    for net, kinds in record["results"].items():
        for kind, seconds in kinds.items():
            for count in (count for count in seconds if count != "one"):
                together, single = seconds[count], seconds["one"]
                rows.append([f"{count} of {net}, {kind}", f"{1e3 * single:.2f}", f"{1e3 * together:.2f}",
                             f"{together / (int(count) * single):.2f}"])  # fmt: skip
    return table(["members", "ms a step of one", "of all", "of all / one by one"], rows)


def time_to_loss(record: Record) -> str:
    """Seconds of training to the same validation loss, by estimator."""
    target, rows = record["target"], []
    for name, runs in record["runs"].items():
        seconds = [time_to(run, target) for run in runs]
        cost = min(run["seconds"][-1] for run in runs) / record["steps"]
        rows.append(
            [f'`"{name}"`', spread(seconds, 1), spread([min(run["losses"]) for run in runs], 4), f"{1e3 * cost:.1f}"]
        )
    return table(["", f"seconds to a loss of {target:.4f}", "lowest loss", "ms a step"], rows)


#: How the record of each program is shown.
TABLES: dict[str, Callable[[Record], str]] = {
    "step_time": step_time,
    "scaling": scaling,
    "members": members,
    "time_to_loss": time_to_loss,
}


def filled(page: str, results: Path) -> str:
    """The page with the tables of the records that are there.

    Args:
        page: in Markdown, with ``<!-- NAME -->`` and ``<!-- end of NAME -->`` around the table of each record.
        results: folder of ``NAME.json``; a name begins with that of a program.

    Raises:
        ValueError: where the page has no place for a record.
    """
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text())
        shown = f"{TABLES[path.stem.split('-')[0]](record)}\n\n`{record['command']}`, {record['machine']}"
        start, end = f"<!-- {path.stem} -->", f"<!-- end of {path.stem} -->"
        place = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if not place.search(page):
            raise ValueError(f"the page has no place for {path.name}: put {start} and {end} where its table should be")
        page = place.sub(lambda _, block=f"{start}\n\n{shown}\n\n{end}": block, page)
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--page", type=Path, default=PAGE, help="what the tables stand in")
    parser.add_argument("--out", type=Path, help="the page with its tables; by default the page itself")
    options = parser.parse_args()
    text, target = filled(options.page.read_text(), options.results), options.out or options.page
    write(target, lambda path: path.write_text(text))
    print(f"tables in {target}")
