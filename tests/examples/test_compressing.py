"""Parts of compress.py: what is chosen is chosen on validation data, within the bounds that are asked for."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from compress import cut_by_gates, split
from compressing.settings import Setting
from compressing.stages import Data, Run, pick, plain, pruned
from compressing.summary import row_of
from data import load
from torch import nn

from models import mlp


@pytest.fixture(autouse=True, scope="module")
def _no_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_vbd.compression.latency._SECONDS", 0.0)
        yield


SETTING = Setting(
    lambda: mlp(6, (12, 12), 3), 50, plain_epochs=10, weight_epochs=10, refit_epochs=4, lr=1e-2, max_loss=100.0,
    gates=nn.ReLU, gate_epochs=10, gate_weights=(30.0, 1.0), tuning_epochs=4, last_epochs=4,
)  # fmt: skip


def pictures(count, generator):
    x = torch.randn(count, 1, 2, 3, generator=generator)
    return x, x.flatten(1)[:, :3].argmax(1)


RUN = Run(0, compile=False, keep=None, progress=False)


def run_all(data):
    first = plain(SETTING, data, RUN)
    rows = [row_of("plain", first, first, data)]
    narrow, _ = cut_by_gates(first, rows, SETTING, data, RUN)
    return rows, narrow, pruned(narrow, rows[0].validation_error + 10.0, SETTING, data, RUN)


@pytest.fixture(scope="module")
def data():
    with torch.device("cpu"):
        g = torch.Generator().manual_seed(0)
        return Data(*pictures(300, g), *pictures(151, g), *pictures(100, g))


@pytest.fixture(scope="module")
def done(data):
    with torch.device("cpu"):
        return run_all(data)


def test_validation_data_are_no_training_data(device):
    found, whole = split("digits", Path(), device), load("digits", Path())
    assert (len(found.x), len(found.x_val), len(found.x_test)) == (798, 399, 600)
    for parts, expected in (
        ((found.x, found.x_val), whole.x), ((found.y, found.y_val), whole.y), ((found.x_test,), whole.x_eval),
        ((found.y_test,), whole.y_eval),
    ):  # fmt: skip
        assert torch.equal(torch.cat(parts).cpu(), expected.cpu())


def with_nonsense_for_test(data):
    return replace(data, x_test=torch.zeros_like(data.x_test), y_test=torch.full_like(data.y_test, 2))


def test_nothing_is_chosen_on_the_test_set(data, done):
    rows, narrow, sparse = done
    other_rows, other_narrow, other_sparse = run_all(with_nonsense_for_test(data))
    assert [row.test_error for row in rows] != [row.test_error for row in other_rows]
    for first, second in ((narrow, other_narrow), (sparse.network, other_sparse.network)):
        ours, theirs = first.state_dict(), second.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert sparse.threshold == other_sparse.threshold
    assert all(
        abs(151 * point.error - round(151 * point.error)) < 1e-6 for point in sparse.swept.points
    )  # of so many validation data
    assert [vars(point) for point in sparse.swept.points] == [vars(point) for point in other_sparse.swept.points]


def test_more_weight_closes_more_gates_and_a_bound_keeps_the_accuracy(data, done):
    (first, small, large), narrow, _ = done
    assert small.multiply_adds < large.multiply_adds < first.multiply_adds
    assert work(narrow) == small.multiply_adds
    loss = large.validation_error - first.validation_error
    assert loss < small.validation_error - first.validation_error
    strict = replace(SETTING, max_loss=max(loss, 0.0))
    narrow, _ = cut_by_gates(plain(SETTING, data, RUN), [first], strict, with_nonsense_for_test(data), RUN)
    assert work(narrow) == large.multiply_adds


def work(net):
    return sum(p.numel() for p in net.parameters() if p.dim() > 1)


def test_the_highest_ratio_within_the_bound_or_else_the_lowest_error():
    points = [
        SimpleNamespace(error=e, ratio=r) for e, r in ((0.04, 20.0), (0.02, 10.0), (0.02, 12.0), (0.01, 5.0), (0.01, 7.0))
    ]
    assert pick(points, 0.02).ratio == 12.0
    assert pick(points, 0.03).ratio == 12.0
    assert pick(points, 1.0).ratio == 20.0
    assert pick(points, 0.005).ratio == 7.0
