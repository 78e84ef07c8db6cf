"""State on disk: written whole or not at all, checked when read, and never able to run code."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_map_with_path

from pyro_vbd.whole_file import read_checked, write_checked

__all__ = ["load_checkpoint", "previous_of", "save_checkpoint"]

#: What torch reads without running code, beside None.
_LEAVES = (torch.Tensor, bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_MARK = b"pyro_vbd checkpoint 2\n"


def previous_of(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the last one lies, which nothing reads before a user moves it to ``path``."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts; the file that was there becomes the previous one.

    The bytes go to a temporary file, to the disk, and then by renaming to their place: a run killed at any moment leaves
    a whole file under ``path``, the last one or this. No file there means that the run starts anew. Numbers and arrays of
    NumPy are written as Python's.

    Raises:
        ValueError: for a value of another type, which :func:`load_checkpoint` would refuse; nothing is written.
    """
    buffer = io.BytesIO()
    torch.save(tree_map_with_path(_readable, state), buffer)
    write_checked(path, _MARK, buffer.getvalue(), previous_of(path))


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = None) -> dict[str, Any]:
    """Read a state that :func:`save_checkpoint` wrote.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is of another kind, cut short or changed, or holds an object that may run code when it is
            read (nothing of it is); it says where the previous one lies.
        RuntimeError: torch's, for tensors of a device that is not there: give ``map_location``.
    """
    mend = _mend(path)
    payload = read_checked(path, (_MARK,), "checkpoint", mend)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} holds more than tensors, numbers and words, and was not read: {reason}; {mend}"
        ) from error
    return state


def _readable(place: Any, value: Any) -> Any:
    """A leaf of the state as it can be read again."""
    if type(value).__module__ == "numpy":
        return value.tolist()
    if value is None or isinstance(value, _LEAVES):
        return value
    raise ValueError(
        f"state{keystr(place)} is a {type(value).__name__}, which a checkpoint cannot hold: make it a tensor, a number or "
        "a string"
    )


def _mend(path: str | os.PathLike[str]) -> str:
    previous = previous_of(path)
    if previous.exists():
        return f"the one before it is {previous}: move it here to go on from there"
    return "delete it to start anew"
