import pytest
import torch

from examples.data import load
from examples.paper.splits import load_splits
from tests.paper.small_data import images, write_cifar10, write_mnist, write_svhn

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _torchvision():
    pytest.importorskip("torchvision")


def rows(*tensors):
    return {row.numpy().tobytes() for tensor in tensors for row in tensor}


def test_held_out_data_are_a_sixth_of_the_training_set_and_never_the_test_set(tmp_path):
    write_mnist(tmp_path, train=300, test=100)
    whole = load_splits("mnist", tmp_path, "last", CPU)
    parts = load_splits("mnist", tmp_path, "validation", CPU)
    assert (len(whole.x), len(parts.x), len(parts.x_val), len(parts.x_test)) == (300, 250, 50, 100)
    assert whole.x_val is None
    assert rows(parts.x).isdisjoint(rows(parts.x_val))
    assert rows(parts.x, parts.x_val) == rows(whole.x)
    assert torch.equal(parts.x_test, whole.x_test)
    assert not rows(parts.x_val) <= rows(whole.x[:100])  # of all the training set
    labels = {row.numpy().tobytes(): int(label) for row, label in zip(whole.x, whole.y, strict=True)}
    for x, y in ((parts.x, parts.y), (parts.x_val, parts.y_val)):
        assert [labels[row.numpy().tobytes()] for row in x] == y.tolist()
    again = load_splits("mnist", tmp_path, "validation", CPU)
    torch.manual_seed(5)
    assert torch.equal(again.x_val, parts.x_val)


@pytest.mark.parametrize(("name", "write"), [("cifar10", write_cifar10), ("svhn", write_svhn)])
def test_colour_pictures_are_standardised_by_the_training_set(tmp_path, name, write):
    import numpy as np

    write(tmp_path, train=40, test=100)
    split = load(name, tmp_path)
    assert split.x.shape == (200 if name == "cifar10" else 40, 3, 32, 32)
    assert split.x_eval.shape == (100, 3, 32, 32)
    torch.testing.assert_close(split.x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(split.x.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    # the first pictures as they were written: the same order of channels, rows and columns, the same labels
    rng = np.random.default_rng(0)
    pictures, labels = images(40, (3, 32, 32), rng)
    assert split.y[:40].tolist() == labels.tolist()
    assert split.y.dtype == torch.int64
    first = torch.from_numpy(pictures[:40]).float().flatten()
    correlation = torch.corrcoef(torch.stack([first, split.x[:40].flatten()]))[0, 1]
    assert correlation > 0.99


def test_svhn_holds_zeros_as_tens(tmp_path):
    from scipy.io import loadmat

    write_svhn(tmp_path)
    raw = loadmat(tmp_path / "train_32x32.mat")
    assert raw["X"].shape == (32, 32, 3, 200)
    assert set(raw["y"].ravel()) == set(range(1, 11))
    assert set(load("svhn", tmp_path).y.tolist()) == set(range(10))
