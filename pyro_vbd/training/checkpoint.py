"""State on disk: written whole or not at all, checked when read, and never able to run code."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from pyro_vbd.whole_file import read_checked, write_checked

__all__ = ["load_checkpoint", "previous_of", "save_checkpoint"]

#: What torch reads without running code, beside tensors: of these types themselves, for a subclass is the user's code.
_LEAVES = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device})
_MARK = b"pyro_vbd checkpoint 2\n"


def previous_of(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the last one lies, which nothing reads before a user moves it to ``path``."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts; the file that was there becomes the previous one.

    The bytes go to a temporary file, to the disk, and then by renaming to their place: a run killed at any moment leaves
    a whole file under ``path``, the last one or this. No file there means that the run starts anew. Numbers and arrays of
    NumPy are written as Python's, named tuples and other kinds of dict and list as plain ones.

    Raises:
        ValueError: for a value or a key of another type, which :func:`load_checkpoint` would refuse; nothing is written.
    """
    buffer = io.BytesIO()
    torch.save(_readable(state, "state"), buffer)
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


def _readable(value: Any, place: str) -> Any:
    """A part of the state as it can be read again."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, dict):
        return {_readable(k, f"a key of {place}"): _readable(v, f"{place}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        parts = [_readable(part, f"{place}[{number}]") for number, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, torch.Tensor) or type(value) in _LEAVES:
        return value
    raise ValueError(
        f"{place} is a {type(value).__name__}, which a checkpoint cannot hold: make it a tensor, a number or a string"
    )


def _mend(path: str | os.PathLike[str]) -> str:
    previous = previous_of(path)
    if previous.exists():
        return f"the one before it is {previous}: move it here to go on from there"
    return "delete it to start anew"
