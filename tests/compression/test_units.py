import torch

from pyro_vbd.compression.units import Axis, Units


def test_tied_units_stay_together():
    units = Units()
    a, b, c = units.new(3), units.new(3), units.new(2)
    units.tie(a, b)
    units.tie(b[1:], c)
    kept = units.kept([a[:1], c[1:]])
    assert kept.tolist() == [True, False, True, True, False, True, False, True]
    units.pin(b[1:2])
    assert units.kept([]).tolist() == [False, True, False, False, True, False, True, False]


def test_an_axis_knows_what_varies():
    axis = Axis(1, torch.arange(2), torch.tensor([0.0, torch.nan]))
    assert axis.varies.tolist() == [False, True]
