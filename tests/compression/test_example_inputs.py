import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression.example_inputs import example_inputs, resized
from tests.test_supervised import TwoInputs


def test_are_like_those_that_were_seen():
    model = vbd.Classifier(TwoInputs(), vbd.priors.GaussianUniform(), 8)
    with pytest.raises(ValueError, match=r"has not run yet.*pass example inputs by inputs="):
        example_inputs(model.network)
    model((torch.randn(7, 3), torch.randn(7, 2)))
    state = torch.get_rng_state()
    first, second = example_inputs(model.network)
    assert (first.shape, second.shape) == ((2, 3), (2, 2))
    assert torch.equal(state, torch.get_rng_state())


def test_what_has_no_datum_for_each_is_left():
    x, mask, scale = torch.randn(3, 5, 2), torch.randn(5, 5), torch.tensor(2.0)
    for size in (1, 2, 7):
        more, same_mask, same_scale, flag = resized((x, mask, scale, True), size)
        assert torch.equal(more, x.repeat(3, 1, 1)[:size])
        assert same_mask is mask
        assert same_scale is scale
        assert flag is True
    (same,) = resized((scale,), 2)
    assert same is scale


def test_integers_and_dicts():
    model = vbd.Classifier(nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)), vbd.priors.Gaussian(), 8)
    model({"input": torch.randint(5, (4, 2))})
    (found,) = example_inputs(model.network).values()
    assert found.dtype == torch.int64
    assert found.eq(0).all()


def test_positional_and_keyword_inputs_are_asked_for():
    lifted = vbd.lift(nn.Bilinear(3, 2, 4), vbd.priors.Gaussian())
    lifted(torch.randn(5, 3), input2=torch.randn(5, 2))
    with pytest.raises(ValueError, match="takes positional and keyword inputs: pass example inputs by inputs="):
        example_inputs(lifted)
