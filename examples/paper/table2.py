"""Table 2: dropouts on CIFAR-10, a convolutional network at three scales.

Run it with ``python examples/paper/table2.py --data-dir DIR --seeds 5 --device cuda``.
"""

from __future__ import annotations

from examples.paper.cell import Column, Table
from examples.paper.convolutional_dropouts import NOTE, methods
from examples.paper.runner import main

SIZES = ("1", "1.5", "2")
ERRORS = {
    "none": (48.34, 48.13, 47.56),
    "bernoulli": (45.55, 43.38, 42.69),
    "gaussian": (46.52, 43.50, 42.79),
    "adversarial": (45.50, 42.35, 42.50),
    "concrete": (43.47, 42.68, 42.19),
    "vd": (44.12, 42.99, 42.60),
    "vbd": (39.50, 38.88, 38.52),
}
PRINTED = {
    name: {size: {"error": error} for size, error in zip(SIZES, errors, strict=True)} for name, errors in ERRORS.items()
}

TABLES = [
    Table(
        "2",
        "Dropouts on CIFAR-10, test error in %, by the scale of the network",
        "cifar10",
        SIZES,
        methods(SIZES, PRINTED),
        {"error": Column("error %")},
        NOTE,
    )
]

if __name__ == "__main__":
    main("table2")
