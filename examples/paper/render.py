"""Write the tables from the records, without running anything.

Run it with ``python examples/paper/render.py [--results DIR] [--readme FILE]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.paper.rendering import render

HERE = Path(__file__).parent

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the records")
    parser.add_argument("--readme", type=Path, help="by default README.md beside that folder")
    options = parser.parse_args()
    target = options.readme or options.results.parent / "README.md"
    render(options.results, target)
    print(f"tables in {target}")
