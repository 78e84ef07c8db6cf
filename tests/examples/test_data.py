"""Data sets of the examples: classes held out, and grey pictures of another origin."""

import numpy as np
import torch
from data import Split, cifar10_grey, load, without_classes


def test_classes_held_out_are_in_neither_part_and_labels_have_no_gaps():
    y, y_eval = torch.tensor([0, 3, 5, 3, 9, 5]), torch.tensor([9, 0, 3, 5])
    kept, strange = without_classes(Split(torch.arange(6.0), y, torch.arange(4.0) + 10, y_eval), (3, 9))
    assert kept.x.tolist() == [0, 2, 5]
    assert kept.y.tolist() == [0, 1, 1]
    assert kept.x_eval.tolist() == [11, 13]
    assert kept.y_eval.tolist() == [0, 1]
    assert strange.tolist() == [10, 12]


def test_digits_without_eight_and_nine():
    kept, strange = without_classes(load("digits", None), (8, 9))
    assert kept.y.unique().tolist() == list(range(8))
    assert len(strange) + len(kept.x_eval) == 600
    assert 90 < len(strange) < 150


def test_validation_never_shows_the_test_data():
    whole, held = load("digits", None), load("digits", None, validation=True)
    assert len(held.x) + len(held.x_eval) == len(whole.x)
    pixels = {tuple(row.flatten().tolist()) for row in whole.x_eval}
    assert not pixels & {tuple(row.flatten().tolist()) for row in torch.cat([held.x, held.x_eval])}


def test_grey_pictures(tmp_path):
    assert cifar10_grey(tmp_path) is None
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    record = np.zeros((2, 3073), dtype=np.uint8)
    record[0, 1:] = 255  # white
    record[1, 1 + 1024 : 1 + 2048] = 255  # green
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        record.tofile(folder / name)
    grey = cifar10_grey(tmp_path)
    assert grey.shape == (2, 1, 28, 28)
    torch.testing.assert_close(grey[0], torch.ones(1, 28, 28))
    torch.testing.assert_close(grey[1], torch.full((1, 28, 28), 0.587))
