"""Files written whole or not at all, and the checksum by which a changed one is known."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["checksum", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str], previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and put what is written there in its place at the end.

    Its name ends as that of ``path`` does, for programs that go by that. A run that is killed or fails leaves the file that
    was there before: once there is a whole file under ``path``, there always is.

    Args:
        path: the file.
        previous: another name for the file that was there; None lets it go.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.touch(exist_ok=False)  # readable as new files here are: tempfile's would be private
    try:
        yield temporary
        _to_disk(temporary)
        if previous is not None and path.exists():
            _name_also(path, previous)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """A name that no file has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _name_also(path: Path, other: Path) -> None:
    """Let the file be found under another name too; under its own it never ceases to be."""
    second = _beside(other)
    try:
        try:
            os.link(path, second)
        except OSError:  # a file system without hard links
            shutil.copy2(path, second)
            _to_disk(second)
        os.replace(second, other)
    finally:
        second.unlink(missing_ok=True)  # renaming to what is the same file already does nothing


def checksum(payload: bytes) -> bytes:
    """65 bytes: SHA-256 in hexadecimal digits, and the end of a line."""
    return hashlib.sha256(payload).hexdigest().encode() + b"\n"
