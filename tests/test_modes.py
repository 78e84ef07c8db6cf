import pyro.poutine as poutine
import pytest
from torch import nn

from pyro_vbd.modes import in_mode


def fail_in_mode(net, training):
    with in_mode(net, training):
        assert {part.training for part in net.modules()} == {training}
        raise KeyError


@pytest.mark.parametrize("training", [True, False])
def test_every_submodule_is_in_the_mode_and_then_in_its_own_again(training):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    net[1].eval()
    with pytest.raises(KeyError):
        fail_in_mode(net, training)
    assert [part.training for part in net.modules()] == [True, True, False, True]


def test_a_module_has_its_say_about_its_mode():
    """As one that keeps its BatchNorm frozen, whatever it is asked."""

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.dropout = nn.BatchNorm1d(2), nn.Dropout()

        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    net = nn.Sequential(Frozen())
    net[0].norm.train()
    with in_mode(net, True):
        assert (net[0].norm.training, net[0].dropout.training) == (False, True)
    assert net[0].norm.training


def test_a_function_is_left_alone():
    with in_mode(lambda x: x, True):
        pass


def test_handlers_of_pyro_do_not_hide_a_module():
    """Else a model under poutine.scale would predict with dropout at work, and move the statistics of its BatchNorm."""
    net = nn.Sequential(nn.Dropout())
    with in_mode(poutine.scale(poutine.condition(net, data={}), scale=2.0), False):
        assert not net[0].training
    assert net[0].training
