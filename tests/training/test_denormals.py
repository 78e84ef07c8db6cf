import pytest
import torch

import pyro_vbd as vbd
from pyro_vbd.training.denormals import flushed_denormals
from tests.digits import digits, pair


def is_supported() -> bool:
    supported = torch.set_flush_denormal(True)
    torch.set_flush_denormal(False)
    return supported


pytestmark = pytest.mark.skipif(not is_supported(), reason="this processor has no such mode")


def halved() -> float:
    """Half of the smallest normal number."""
    return float(torch.full((), torch.finfo(torch.float32).tiny, device="cpu") * 0.5)


def test_denormals_are_zero_inside_and_themselves_again_outside():
    assert halved() > 0
    with flushed_denormals():
        assert halved() == 0
    assert halved() > 0
    with pytest.raises(KeyError), flushed_denormals():
        raise KeyError
    assert halved() > 0


def test_a_mode_that_was_on_stays_on():
    torch.set_flush_denormal(True)
    try:
        with flushed_denormals():
            assert halved() == 0
        assert halved() == 0
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("members", [False, True])
def test_training_flushes_them_and_gives_the_mode_back(members):
    x, y, *_ = digits(torch.device("cpu"), 60)
    model, guide = pair(60)
    seen = []
    look = [lambda *_: seen.append(halved())]
    data = vbd.Batches(x, y)
    if members:
        vbd.fit_members([model], [guide], data, epochs=1, callbacks=look, progress=False)
    else:
        vbd.fit(model, guide, data, epochs=1, callbacks=look, progress=False)
    assert seen == [0]
    assert halved() > 0
