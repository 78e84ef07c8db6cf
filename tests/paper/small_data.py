"""Small data sets: random ones in the files that the real ones come in, and digits as large as those of MNIST."""

import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from examples.paper.splits import Splits
from tests.digits import digits


def images(count, shape, rng):
    """Images whose class shows in a bright band, so that something can be learned."""
    labels = rng.integers(0, 10, count)
    pictures = rng.integers(0, 60, (count, *shape))
    for picture, label in zip(pictures, labels, strict=True):
        picture[..., 2 * label : 2 * label + 3, :] += 180
    return pictures.astype(np.uint8), labels.astype(np.uint8)


def enlarged_digits(device: torch.device, train: int, held_out: bool = False) -> Splits:
    """Scikit-learn's digits, 28 pixels wide; of those for testing a hundred are held out as well."""
    x, y, x_test, y_test = digits(device, train)
    x, x_test = (F.interpolate(part.view(-1, 1, 8, 8), size=(28, 28)) for part in (x, x_test))
    return Splits(x, y, x_test, y_test, *((x_test[:100], y_test[:100]) if held_out else (None, None)))


def write_mnist(folder: Path, train=300, test=100):
    rng = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("t10k", test)):
        x, y = images(count, (28, 28), rng)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + x.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + y.tobytes())


def write_cifar10(folder: Path, train=50, test=100):
    rng = np.random.default_rng(0)
    binary = folder / "cifar-10-batches-bin"
    binary.mkdir(parents=True, exist_ok=True)
    for name, count in [*((f"data_batch_{i}", train) for i in range(1, 6)), ("test_batch", test)]:
        x, y = images(count, (3, 32, 32), rng)
        (binary / f"{name}.bin").write_bytes(np.concatenate([y[:, None], x.reshape(count, -1)], 1).tobytes())


def write_svhn(folder: Path, train=200, test=100):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test)):
        x, y = images(count, (3, 32, 32), rng)
        labels = np.where(y == 0, 10, y)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": labels})
