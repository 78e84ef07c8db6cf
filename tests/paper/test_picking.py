import pytest
import torch

from examples.paper.measures import error
from examples.paper.picking import measured, metrics, seconds
from examples.paper.splits import Splits


def measure(net, x, y):
    return {"error": error(net, x, y)}


def splits(held_out):
    x, y = torch.eye(4), torch.arange(4)
    return Splits(x, y, x, y, *((x, y.flip(0)) if held_out else ()))


def test_the_epoch_of_least_validation_error_and_its_test_error():
    history = [
        {"held_out": {"error": 3.0}, "tested": {"error": 9.0}},
        {"held_out": {"error": 1.0}, "tested": {"error": 8.0}},
        {"held_out": {"error": 2.0}, "tested": {"error": 1.0}},
    ]
    found = metrics(torch.nn.Identity(), splits(True), measure, history)
    assert found == {"error": 0.0, "picked": {"error": 8.0, "epoch": 1, "validation_error": 1.0}}
    late = metrics(torch.nn.Identity(), splits(True), measure, history, begin=0.7)
    assert late["picked"]["epoch"] == 2
    equal = metrics(torch.nn.Identity(), splits(True), measure, [*history, history[1]])
    assert equal["picked"]["epoch"] == 1  # the first of several
    only = metrics(torch.nn.Identity(), splits(True), measure, history[:1], begin=0.75)
    assert only["picked"]["epoch"] == 0


def test_without_held_out_data_nothing_is_picked():
    assert measured(torch.nn.Identity(), splits(False), measure) == {}
    assert metrics(torch.nn.Identity(), splits(False), measure, [{"loss": 1.0}]) == {"error": 0.0}


def test_both_are_measured():
    found = measured(torch.nn.Identity(), splits(True), measure)
    assert found == {"held_out": {"error": 100.0}, "tested": {"error": 0.0}}


def test_seconds_of_all_phases():
    assert seconds([{"seconds": 1.5}, {"seconds": 2.0}], [{"seconds": 4.0}]) == pytest.approx(7.5)
