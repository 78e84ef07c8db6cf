"""Files written whole or not at all, and the checksum by which a changed one is known."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["checksum", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str], previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and put what is written there in its place at the end.

    A run that is killed or fails leaves the file that was there before, under ``path`` or under ``previous``.

    Args:
        path: the file.
        previous: where the file that was there goes; None lets it go.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def checksum(payload: bytes) -> bytes:
    """65 bytes: SHA-256 in hexadecimal digits, and the end of a line."""
    return hashlib.sha256(payload).hexdigest().encode() + b"\n"
