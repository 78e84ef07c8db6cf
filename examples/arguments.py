"""What a number on the command line may be."""

from __future__ import annotations

import argparse

__all__ = ["at_least_one"]


def at_least_one(text: str) -> int:
    """A number of seeds, epochs, processes: 1 or more. With none a program would do something else than it was told."""
    value = int(text)  # argparse says which argument is no number
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few: use 1 or more")
    return value
