"""The cells of a comparison: each is run once, by whichever process comes to it first, and kept in a file of its own.

Runners of the same comparison, on any machines that see the folder, share the work: a lock that the system lets go when its
holder dies keeps two of them from the same cell. One that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import pyro
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

import pyro_vbd as vbd

__all__ = ["run_cells"]


def run_cells(
    function: Callable[..., dict[str, Any]],
    cells: Mapping[str, tuple[Any, ...]],
    configuration: Any,
    folder: Path,
    jobs: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each cell's name and what ``function`` returns for its arguments, in order; with a bar.

    Args:
        function: of a module, for other processes to find; what it returns holds tensors, numbers, words, lists and dicts.
        cells: arguments by name.
        configuration: what else the results depend on, as ``repr`` shows it; other files belong to another one.
        folder: of the files.
        jobs: cells at once, each in a process of its own.
    """
    versions = vbd.__version__, torch.__version__, pyro.__version__
    digest = hashlib.sha256(repr((configuration, versions)).encode()).hexdigest()[:12]
    files = {name: folder / f"{re.sub(r'[^0-9A-Za-z-]+', '-', name)}_{digest}" for name in cells}
    if done := sum(file.exists() for file in files.values()):
        print(f"{done} of {len(cells)} runs are read from {folder}: delete it to run them again")
    call = joblib.delayed(_run_once)
    found = joblib.Parallel(n_jobs=min(jobs, len(cells)), return_as="generator")(
        call(function, cells[name], files[name], 0) for name in cells
    )
    for name, result in zip(cells, tqdm(found, total=len(cells), unit="run"), strict=True):
        # another runner is at it: waited for, and taken over if that one dies
        yield name, _run_once(function, cells[name], files[name], -1) if result is None else result


def _run_once(function: Callable[..., Any], arguments: tuple[Any, ...], file: Path, timeout: float) -> Any:
    """The result in a file, which is made where it is not there; None if another process is making it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{file}.lock", timeout=timeout):
                if not file.exists():
                    vbd.save_checkpoint(file, function(*arguments))
        except Timeout:
            return None
    return vbd.load_checkpoint(file)
