"""Runs that are killed behind one of their checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

import pytest

import pyro_vbd as vbd


@contextmanager
def killed_after(saves: int, files: str = "*") -> Iterator[list[str]]:
    """Inside the context a run has to end, at its checkpoint of that number among files of such names, which it gives."""
    written: list[str] = []

    def save_and_stop(path, state, save=vbd.save_checkpoint):
        save(path, state)
        if fnmatchcase(path.name, files):
            written.append(path.name)
            if len(written) == saves:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        for user in ("pyro_vbd", "pyro_vbd.training.epochs"):
            patch.setattr(f"{user}.save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            yield written
