"""Functions run by several processes at once, as torchrun would start them, and what each of them returns."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.programs import CONTEXT


def in_processes(function: Callable[..., Any], size: int, folder: Path, *args: Any) -> list[Any]:
    """What ``function(*args)`` returns in each process of a group, in their order; a string tells of an exception."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = [CONTEXT.Process(target=_run, args=(function, rank, size, folder, args)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * size, "a process hung or died"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _run(function: Callable[..., Any], rank: int, size: int, folder: Path, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size))
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=size)
    try:
        result = function(*args)
    except Exception:
        result = traceback.format_exc()
    torch.save(result, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
