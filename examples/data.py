"""Data sets of the examples as tensors: digits from scikit-learn's wheel, the others through torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOADERS", "Split", "cifar10_grey", "load", "without_classes"]


@dataclass(frozen=True)
class Split:
    """Training and evaluation data: images in [0, 1] or standardised, of shape ``(N, C, H, W)``, and labels ``(N,)``."""

    x: Tensor
    y: Tensor
    x_eval: Tensor
    y_eval: Tensor


def digits(folder: Path) -> Split:
    """1,797 digits of 8x8 pixels, a third of them for the test; inside scikit-learn's wheel."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(images, labels, test_size=600, random_state=0, stratify=labels)
    x, x_test, y, y_test = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return Split(x, y, x_test, y_test)


def mnist(folder: Path) -> Split:
    """60,000 and 10,000 digits of 28x28 pixels."""
    return _torchvision("MNIST", folder)


def fashion_mnist(folder: Path) -> Split:
    """60,000 and 10,000 pictures of clothes of 28x28 pixels."""
    return _torchvision("FashionMNIST", folder)


def cifar10(folder: Path) -> Split:
    """50,000 and 10,000 colour pictures of 32x32 pixels, standardised; also from CIFAR-10's "binary version"."""
    return _standardised(_cifar(folder))


def svhn(folder: Path) -> Split:
    """73,257 and 26,032 house numbers, colour pictures of 32x32 pixels, standardised; the extra set is left out."""
    parts: list[Tensor] = []
    for part in ("train", "test"):
        file = folder / f"{part}_32x32.mat"
        if not file.exists():
            from torchvision import datasets

            datasets.SVHN(folder, split=part, download=True)
        parts += _svhn_images(file)
    return _standardised(Split(*parts))


LOADERS: dict[str, Callable[[Path], Split]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "svhn": svhn,
}


def load(name: str, folder: Path, validation: bool = False, seed: int = 0) -> Split:
    """A data set; with ``validation``, a sixth of the training set takes the place of the test set, which stays unseen."""
    split = LOADERS[name](folder)
    if not validation:
        return split
    order = torch.randperm(len(split.x), generator=torch.Generator().manual_seed(seed))
    held_out, kept = order[: len(order) // 6], order[len(order) // 6 :]
    return Split(split.x[kept], split.y[kept], split.x[held_out], split.y[held_out])


def without_classes(split: Split, held_out: Sequence[int]) -> tuple[Split, Tensor]:
    """The data without some classes, labelled from 0 again, and the evaluation images of the classes held out."""
    labels = split.y.unique()
    kept = labels[~torch.isin(labels, labels.new_tensor(held_out))]
    train, test = torch.isin(split.y, kept), torch.isin(split.y_eval, kept)
    y, y_eval = (torch.searchsorted(kept, part) for part in (split.y[train], split.y_eval[test]))
    return Split(split.x[train], y, split.x_eval[test], y_eval), split.x_eval[~test]


def cifar10_grey(folder: Path) -> Tensor | None:
    """CIFAR-10's test images in grey (ITU-R 601 luma) at 28x28, in [0, 1]; None where they are not in the folder."""
    if not any((folder / name).is_dir() for name in ("cifar-10-batches-bin", "cifar-10-batches-py")):
        return None
    images = _cifar(folder).x_eval
    grey = (images * images.new_tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
    return F.interpolate(grey, size=(28, 28), mode="bilinear", antialias=True, align_corners=False)


def _torchvision(name: str, folder: Path) -> Split:
    from torchvision import datasets

    parts: list[Tensor] = []
    for train in (True, False):
        found = getattr(datasets, name)(folder, train=train, download=True)
        images = torch.as_tensor(np.asarray(found.data)).float() / 255.0
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
        parts += [images, torch.as_tensor(found.targets)]
    return Split(*parts)


def _standardised(split: Split) -> Split:
    """Each channel at mean 0 and standard deviation 1 over the training images."""
    mean = split.x.mean((0, 2, 3), keepdim=True)
    deviation = split.x.std((0, 2, 3), keepdim=True)
    return Split((split.x - mean) / deviation, split.y, (split.x_eval - mean) / deviation, split.y_eval)


def _svhn_images(path: Path) -> tuple[Tensor, Tensor]:
    """Images of shape (32, 32, 3, N) and labels from 1 to 10, where 10 stands for the digit 0."""
    from scipy.io import loadmat

    content = loadmat(path)
    images = torch.from_numpy(np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)))
    return images.float() / 255.0, torch.from_numpy(content["y"].astype(np.int64).squeeze(1) % 10)


def _cifar(folder: Path) -> Split:
    binary = folder / "cifar-10-batches-bin"
    if not binary.is_dir():
        return _torchvision("CIFAR10", folder)
    train = [_cifar_records(binary / f"data_batch_{i}.bin") for i in range(1, 6)]
    x, y = (torch.cat(parts) for parts in zip(*train, strict=True))
    return Split(x, y, *_cifar_records(binary / "test_batch.bin"))


def _cifar_records(path: Path) -> tuple[Tensor, Tensor]:
    """Records of one label byte and 3,072 image bytes."""
    records = torch.from_numpy(np.fromfile(path, dtype=np.uint8).reshape(-1, 3073))
    return records[:, 1:].reshape(-1, 3, 32, 32).float() / 255.0, records[:, 0].long()
