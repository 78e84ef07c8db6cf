import dataclasses
import json
import math

import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression.multiply_adds import multiply_adds
from pyro_vbd.compression.report import layer_reports, total_bytes
from tests.compression.networks import Tied


def small_report():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        net[0].weight[1] = 0.0
        net[3].weight[:4, 100:] = 0.0
        net[3].weight[5] = 0.0
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model)
    return vbd.compress(model, guide, 1e9, inputs=torch.randn(2, 1, 8, 8), batch_sizes=(1,))


def test_numbers_are_those_of_the_networks():
    small, report = small_report()
    conv, hidden, last = report.layers
    assert (conv.name, conv.kind, conv.weights, conv.nonzero, conv.units, conv.units_left) == ("0", "Conv2d", 36, 27, 4, 3)
    assert (conv.multiply_adds, conv.multiply_adds_left) == (36 * 36, 27 * 36)
    assert (hidden.units, hidden.units_left, last.weights, last.nonzero) == (6, 5, 18, 15)
    assert (hidden.multiply_adds, hidden.multiply_adds_left) == (144 * 6, 108 * 5)
    assert (hidden.bytes, hidden.bytes_left) == (4 * 145 * 6, 4 * 109 * 5)
    assert hidden.nonzero == int((small[3].weight != 0).sum())
    assert report.weights == 36 + 144 * 6 + 18
    assert report.bytes_left == total_bytes(small) == sum(4 * p.numel() for p in small.parameters())
    assert report.ratio == report.weights / report.nonzero
    assert report.mask_ratio == report.weights / (report.weights - 9 - 4 * 44 - 144)
    assert report.sparse_bytes > report.sparse_bytes_8


def test_bytes_of_a_selection_count():
    net = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[:, :3] = 0.0
    small = vbd.cut(net, torch.randn(2, 10)).network
    x = torch.randn(2, 10)
    first = layer_reports(net, small, {}, (multiply_adds(net, x), multiply_adds(small, x)))[0]
    assert (first.bytes_left, first.multiply_adds_left, first.nonzero) == (4 * (7 * 4 + 4) + 8 * 7, 28, 28)


def test_a_shared_parameter_counts_once(device):
    model = vbd.Classifier(Tied(20, 5).to(device), vbd.priors.GaussianUniform(), 10)
    inputs = torch.arange(20, device=device)
    small, report = vbd.compress(model, vbd.VBDGuide(model), 1e9, inputs=inputs, batch_sizes=())
    assert small.out.weight is small.words.weight
    assert (report.weights, report.nonzero, report.ratio) == (20 * 5 + 5 * 5, 20 * 5 + 5 * 5, 1.0)
    words, middle, out = report.layers
    assert (words.weights, middle.weights, out.weights, out.nonzero) == (100, 25, 0, 0)
    assert (words.bytes, out.bytes, out.bytes_left, out.multiply_adds) == (400, 80, 80, 100)
    assert report.bytes == report.bytes_left == sum(4 * p.numel() for p in small.parameters())
    assert report.bytes == sum(layer.bytes for layer in report.layers)


class Unused(nn.Module):
    """A product and a size in the code, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.conv, self.never, self.out = nn.Conv1d(1, 4, 3), nn.Linear(5, 7), nn.Linear(24, 3)

    def forward(self, x):
        return self.out(self.conv(x).view(-1, 24)) + (x @ x.transpose(1, 2)).flatten(1)


def test_of_code_outside_layers_and_of_layers_that_never_run():
    net, x = Unused(), torch.randn(2, 1, 8)
    with torch.no_grad():
        net.conv.weight[1] = net.conv.bias[1] = 0.0
        net.out.weight[:, 6:12] = 0.0
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    small, report = vbd.compress(model, vbd.VBDGuide(model), 1e9, inputs=x, batch_sizes=())
    conv, never, out = report.layers
    assert [(row.multiply_adds, row.multiply_adds_left) for row in (conv, never, out)] == [(72, 54), (0, 0), (72, 54)]
    assert report.multiply_adds == (72 + 72 + 8, 54 + 54 + 8)
    assert (never.weights, never.nonzero, never.bytes_left) == (35, 0, 0)
    assert report.bytes_left == total_bytes(small)


def test_as_a_dict_and_as_a_table():
    _, report = small_report()
    found = json.loads(json.dumps(report.to_dict()))
    assert found["total"]["ratio"] == report.ratio
    assert [row["name"] for row in found["layers"]] == ["0", "3", "5"]
    assert found["latency"][0]["batch_size"] == 1
    table = str(report)
    for part in ("4 -> 3", f"{report.weights:,}", "total", "batch of 1:", "times as fast", "with 8 bits a weight"):
        assert part in table
    lines = table.splitlines()
    assert len({line.index("->") for line in lines[1:3]}) == 1
    assert all(not line.endswith(" ") for line in lines)


def test_an_infinite_ratio_is_null_in_json():
    _, report = small_report()
    found = json.loads(json.dumps(dataclasses.replace(report, mask_ratio=math.inf).to_dict(), allow_nan=False))
    assert found["total"]["mask_ratio"] is None
