import copy

import pyro
import pytest
import torch
from torch import nn

from pyro_vbd.compiling.graph_key import Holdings, flat_inputs, input_key, obstacle


def net():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.1))


def test_of_what_modules_hold_a_key_changes_with_numbers_and_not_with_the_values_of_tensors():
    held = net()
    holdings = Holdings((held,))
    before = holdings.key()
    with torch.no_grad():
        held[0].weight.mul_(2)
        held[1].running_mean.add_(1)
    assert holdings.key() == before
    changes = [
        lambda m: setattr(m[2], "p", 0.5), lambda m: m.eval(), lambda m: m[0].weight.requires_grad_(False),
        lambda m: setattr(m[1], "eps", 1.0), lambda m: m[0].double(), lambda m: m[0].weight.register_hook(lambda g: g),
    ]  # fmt: skip
    for change in changes:
        other = copy.deepcopy(held)
        holdings = Holdings((other,))
        before = holdings.key()
        change(other)
        assert holdings.key() != before
        assert not holdings.have_moved()


def test_the_default_dtype_is_part_of_a_key():
    """Of tensors that a model makes."""
    holdings, kept = Holdings((net(),)), torch.get_default_dtype()
    before = holdings.key()
    torch.set_default_dtype(torch.float64)
    try:
        assert holdings.key() != before
    finally:
        torch.set_default_dtype(kept)


@pytest.mark.parametrize("change", [
    lambda m: setattr(m[0], "bias", nn.Parameter(torch.zeros(2))), lambda m: setattr(m[1], "running_mean", torch.zeros(2)),
    lambda m: setattr(m[3], "bias", nn.Parameter(torch.zeros(2))), lambda m: setattr(m, "2", nn.Dropout(0.1)),
])  # fmt: skip
def test_what_has_been_replaced_has_moved(change):
    held = net().append(nn.Linear(2, 2, bias=False))
    holdings = Holdings((held,))
    assert holdings
    assert not holdings.have_moved()
    change(held)
    assert holdings.have_moved()


def test_the_parameters_of_statements_are_among_them():
    pyro.param("a", torch.ones(()))
    (leaf,) = (leaf for _, leaf in pyro.get_param_store().named_parameters())
    assert not Holdings((), [])
    holdings = Holdings((), [leaf])
    assert holdings
    assert not holdings.have_moved()
    pyro.clear_param_store()
    assert holdings.have_moved()


def test_inputs_count_by_shape_and_numbers_by_value():
    def key(*args, **kwargs):
        return input_key(*flat_inputs(args, kwargs))

    x = torch.zeros(4, 3)
    assert key(x, x) == key(x + 1, x)
    others = [
        key(x), key(x[:2], x), key(x.double(), x), key(x.t().contiguous().t(), x), key((x, x)), key(x, y=x), key(x, x, 1),
        key(x, x, 2), key(x, x.to("meta")),
    ]  # fmt: skip
    assert len({key(x, x), *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("leaf", "reason"), [(torch.zeros(2, requires_grad=True), "requires a gradient"), (object(), "neither a tensor")]
)
def test_what_no_graph_can_take(leaf, reason):
    assert obstacle([torch.zeros(2), 1, 0.5, True, "a", None]) is None
    assert reason in obstacle([torch.zeros(2), leaf])


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_under_autocast_no_graph_is_used(kind):
    kept = torch.is_autocast_enabled(kind)
    torch.set_autocast_enabled(kind, True)  # torch.autocast("cuda") warns where there is no GPU
    try:
        assert obstacle([torch.zeros(2)]) == "autocast is on"
    finally:
        torch.set_autocast_enabled(kind, kept)
