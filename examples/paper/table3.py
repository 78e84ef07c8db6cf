"""Table 3: dropouts on SVHN, the network of Table 2 at scale 1.

Run it with ``python examples/paper/table3.py --data-dir DIR --seeds 5 --device cuda``; DIR holds train_32x32.mat and
test_32x32.mat, or gets them through torchvision.
"""

from __future__ import annotations

from examples.paper.cell import Column, Table
from examples.paper.convolutional_dropouts import NOTE, methods
from examples.paper.runner import main

ERRORS = {
    "none": 22.01,
    "bernoulli": 20.31,
    "gaussian": 20.22,
    "concrete": 18.95,
    "adversarial": 18.66,
    "vd": 19.74,
    "vbd": 17.46,
}

TABLES = [
    Table(
        "3",
        "Dropouts on SVHN, test error in %, at scale 1",
        "svhn",
        ("1",),
        methods(("1",), {name: {"1": {"error": error}} for name, error in ERRORS.items()}),
        {"error": Column("error %")},
        NOTE + " Trained on the 73,257 images of the training set, without the extra ones.",
    )
]

if __name__ == "__main__":
    main("table3")
