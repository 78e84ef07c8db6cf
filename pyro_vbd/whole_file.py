"""Files written whole or not at all, and the checksum by which a changed one is known."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["checksum", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str], previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and put what is written there in its place at the end.

    Its name ends as that of ``path`` does, for programs that go by that. A run that is killed or fails leaves the file that
    was there before, under ``path`` or under ``previous``.

    Args:
        path: the file.
        previous: where the file that was there goes; None lets it go.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    temporary.touch(exist_ok=False)  # for those to read who may read new files here: tempfile's are for nobody else
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
