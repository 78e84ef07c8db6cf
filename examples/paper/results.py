"""The results of a table on disk: one JSON line a cell, which two programs at once neither lose nor double."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from examples.paper.cell import Cell
from examples.reporting import write
from pyro_vbd.whole_file import checksum

__all__ = ["Results"]

_KEY = ("table", "method", "size", "seed", "selection")


class Results:
    """The file ``table<name>.jsonl`` in a folder, and who is at work on which cell.

    A cell is claimed by a lock that the system lets go when its holder dies, at whatever moment: no cell stays claimed.

    Args:
        folder: where the results lie; made when the first cell is claimed.
        table: the table's name.
    """

    def __init__(self, folder: Path, table: str) -> None:
        self.path = folder / f"table{table}.jsonl"
        self.claims = folder / ".claims"

    def records(self) -> dict[Cell, dict[str, Any]]:
        """The record of every cell that has run.

        Raises:
            ValueError: for a line that is no record or has been changed, or a cell that is there twice.
        """
        found: dict[Cell, dict[str, Any]] = {}
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                record = json.loads(line)
                cell = Cell(*(record[key] for key in _KEY))
                sound = record.pop("checksum") == _checksum(record)
            except (ValueError, LookupError, TypeError, RecursionError, AttributeError) as error:
                raise ValueError(
                    f"{self.path}:{number} is no record of a cell ({error!r}): delete the line, and the cell runs again"
                ) from None
            if not sound:
                raise ValueError(
                    f"{self.path}:{number} does not match its checksum: delete the line, and the cell {cell} runs again"
                )
            if cell in found:
                raise ValueError(f"{self.path}:{number} holds {cell} a second time: delete one of the two lines")
            found[cell] = record
        return found

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Inside, whether the cell is ours to run: nobody else is at work on it, and it has not run."""
        lock = self._lock(cell.slug)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield cell not in self.records()
        finally:
            lock.release()

    def grouping(self) -> FileLock:
        """Held while several cells are claimed, so that one runner gets all of them."""
        return self._lock("grouping")

    def add(self, cell: Cell, record: dict[str, Any]) -> None:
        """Add the record of a cell that is claimed, in the order of the cells: the file is written anew and renamed."""
        with self._lock(self.path.name):
            records = {**self.records(), cell: {**{key: getattr(cell, key) for key in _KEY}, **record}}
            in_order = sorted(records, key=lambda c: (c.method, c.size, c.selection, c.seed))
            text = "".join(json.dumps({**records[c], "checksum": _checksum(records[c])}) + "\n" for c in in_order)
            write(self.path, lambda path: path.write_text(text))

    def _lock(self, name: str) -> FileLock:
        self.claims.mkdir(parents=True, exist_ok=True)
        return FileLock(self.claims / f"{name}.lock")


def _checksum(record: dict[str, Any]) -> str:
    """Of a record's content, however it is laid out."""
    return checksum(json.dumps(record, sort_keys=True).encode())[:16].decode()
