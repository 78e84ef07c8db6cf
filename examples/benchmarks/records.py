"""What a benchmark measured, as a file: the command, the machine and the numbers.

The tables of the documentation are made of those in ``docs/benchmarks/``, by ``render.py``.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.reporting import write

__all__ = ["command", "save_record"]

#: Flags that say where things lie on this machine.
PATHS = ("--out", "--data-dir")


def command(arguments: Sequence[str]) -> str:
    """A program with its flags, as it is typed in the folder of the project, without those for paths."""
    program, *flags = arguments
    kept = [flag for flag, before in zip(flags, ["", *flags], strict=False) if flag not in PATHS and before not in PATHS]
    return shlex.join(["python", f"examples/benchmarks/{Path(program).name}", *kept])


def save_record(path: Path, machine: str, **measured: Any) -> None:
    """Write what this program measured, whole or not at all.

    Args:
        path: of the file.
        machine: what it ran on.
        **measured: the numbers.
    """
    record = {"command": command(sys.argv), "machine": machine, **measured}
    write(path, lambda temporary: temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n"))
