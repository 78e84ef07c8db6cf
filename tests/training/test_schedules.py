import pytest

from pyro_vbd.training.schedules import constant, kl_ramp, linear_decay, piecewise


def test_kl_ramp_is_that_of_molchanov():
    ramp = kl_ramp(5, 20)
    assert [ramp(epoch, 200) for epoch in (0, 4, 5, 6, 19, 20, 199)] == pytest.approx([0, 0, 0, 1 / 15, 14 / 15, 1, 1])


def test_ramp_of_no_length_is_a_step():
    assert [kl_ramp(3, 3)(epoch, 10) for epoch in (2, 3)] == [0.0, 1.0]
    assert kl_ramp(0, 0)(0, 10) == 1.0


def test_a_ramp_may_begin_between_epochs():
    assert [kl_ramp(0.5, 2.5)(epoch, 10) for epoch in range(4)] == [0.0, 0.25, 0.75, 1.0]


def test_linear_decay_is_that_of_molchanov():
    decay = linear_decay(0.5)  # min(2 - epoch / 100, 1) over 200 epochs
    assert [decay(e, 200) for e in (0, 100, 150, 199)] == pytest.approx([1, 1, 0.5, 0.01])
    assert linear_decay()(50, 200) == pytest.approx(0.75)


def test_constant():
    assert constant(3, 10) == 1.0


def test_piecewise():
    line = piecewise((5, 0.0), (20, 1.0), (100, 1.4))
    found = [line(epoch, 200) for epoch in (0, 5, 8, 20, 60, 100, 199)]
    assert found == pytest.approx([0, 0, 0.2, 1, 1.2, 1.4, 1.4])
    assert [piecewise((5, 0), (20, 1))(e, 200) for e in range(30)] == [kl_ramp(5, 20)(e, 200) for e in range(30)]
    assert piecewise((3, 2.0))(7, 10) == 2.0


@pytest.mark.parametrize("points", [(), ((0, float("nan")),), ((3, 0.0), (3, 1.0)), ((3, 0.0), (1, 1.0))])
def test_a_piecewise_schedule_of_bad_points(points):
    with pytest.raises(ValueError, match="piecewise schedule"):
        piecewise(*points)


def test_a_multiplier_below_0_is_refused():
    with pytest.raises(ValueError, match="below 0"):
        piecewise((0, 1.0), (5, -0.1))


def test_bad_input():
    with pytest.raises(ValueError, match="goes backwards"):
        kl_ramp(5, 4)
    with pytest.raises(ValueError, match="fraction 1"):
        linear_decay(1)
