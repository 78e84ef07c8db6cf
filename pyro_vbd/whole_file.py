"""Files written whole or not at all, and known by a checksum if they have changed since."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["checksum", "read_checked", "whole_file", "write_checked"]


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


def write_checked(path: str | os.PathLike[str], mark: bytes, payload: bytes, previous: Path | None = None) -> None:
    """Write a mark of the file's kind, the checksum of the payload, and the payload; see :func:`whole_file`."""
    with whole_file(path, previous) as temporary:
        temporary.write_bytes(mark + checksum(payload) + payload)


def read_checked(path: str | os.PathLike[str], marks: tuple[bytes, ...], kind: str, mend: str) -> bytes:
    """The payload of a file of :func:`write_checked`.

    Args:
        path: the file.
        marks: those that it may have, all of one length.
        kind: what such a file is, for messages.
        mend: what to do about one that is not, for messages.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it has another mark, or was cut short or changed.
    """
    content = Path(path).read_bytes()
    if not content.startswith(marks):
        raise ValueError(f"{path} is no {kind} of this version of pyro_vbd; {mend}")
    start = len(marks[0])
    found, payload = content[start : start + 65], content[start + 65 :]
    if checksum(payload) != found:
        raise ValueError(f"{path} is damaged: {len(content)} bytes that do not match their checksum; {mend}")
    return payload


def checksum(payload: bytes) -> bytes:
    """65 bytes: SHA-256 in hexadecimal digits, and the end of a line."""
    return hashlib.sha256(payload).hexdigest().encode() + b"\n"
