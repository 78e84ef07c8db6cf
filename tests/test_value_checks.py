"""Checks of data: made at once, not at all, or noted down for later."""

import pyro
import pytest
import torch

from pyro_vbd.value_checks import check_values, recorded_checks


def not_above(value, limit):
    if (value > limit).any():
        raise ValueError(f"above {limit}")


def test_made_while_pyro_validates():
    check_values(not_above, torch.ones(2), limit=1)
    with pytest.raises(ValueError, match="above 0"):
        check_values(not_above, torch.ones(2), limit=0)
    with pyro.validation_enabled(False):
        check_values(not_above, torch.ones(2), limit=0)


@pytest.mark.parametrize("validation", [True, False])
def test_noted_down_with_their_settings_in_order(validation):
    first, second = torch.ones(2), torch.zeros(3)
    with pyro.validation_enabled(validation), recorded_checks() as found:
        check_values(not_above, first, limit=0)
        check_values(not_above, second, limit=5)
        with recorded_checks() as inner:
            check_values(not_above, first, limit=7)
        check_values(not_above, second, limit=6)
    assert [value is tensor for (_, value), tensor in zip(found, (first, second, second), strict=True)] == [True] * 3
    assert len(inner) == 1
    found[1][0](torch.full((1,), 5.0))
    for check, limit in ((found[0][0], 0), (found[1][0], 5), (inner[0][0], 7)):
        with pytest.raises(ValueError, match=f"above {limit}"):
            check(torch.full((1,), 9.0))


def test_made_again_after_the_context():
    with pytest.raises(InterruptedError), recorded_checks():
        raise InterruptedError
    with pytest.raises(ValueError, match="above 0"):
        check_values(not_above, torch.ones(2), limit=0)
