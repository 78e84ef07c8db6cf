import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.compiling.common_graph import Unlike, with_common_graph
from pyro_vbd.compiling.static_model import static_trace
from tests.member_runs import CLASSES, X, data, members


def traces(models, guides, elbos=None):
    elbos = elbos or [vbd.VBD_ELBO() for _ in models]
    return [static_trace(e, m.train(), g.train(), data(10), {}) for e, m, g in zip(elbos, models, guides, strict=True)]


def run(trace):
    torch.manual_seed(0)
    return trace.graph(*data(10), torch.ones((), dtype=torch.get_default_dtype()), *trace.tensors)


PRIORS = {
    "half-Cauchy": lambda k: vbd.priors.Horseshoe(0.1 * (k + 1)),
    "two numbers": lambda k: vbd.priors.StudentT(2.0 + k, 0.1 * (k + 1)),
    "squared": lambda k: vbd.priors.Gaussian(0.1 * (k + 1)),
    "one and the same": lambda k: vbd.priors.GaussianUniform(),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PRIORS)
def test_numbers_that_differ_become_constants(name):
    pairs = members(3, lambda: nn.Linear(X, CLASSES), PRIORS[name])
    expected = [run(trace) for trace in traces(*pairs)]
    found = with_common_graph(traces(*pairs))
    assert len({id(trace.graph) for trace in found}) == 1
    for trace, theirs in zip(found, expected, strict=True):
        assert_close(run(trace), theirs, rtol=1e-12, atol=1e-12)
    if name != "one and the same":
        assert expected[0][0][0] != expected[1][0][0]
        own = [torch.stack([c.double() for c in trace.constants if c.numel() == 1]) for trace in found]
        assert not torch.equal(own[0], own[1])


@pytest.mark.usefixtures("float64")
def test_numbers_of_data_may_differ():
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    other = vbd.Classifier(nn.Linear(X, CLASSES), vbd.priors.GaussianUniform(), 900)
    pairs = [models[0], other], [guides[0], vbd.VBDGuide(other)]
    expected = [run(trace) for trace in traces(*pairs)]
    for trace, theirs in zip(with_common_graph(traces(*pairs)), expected, strict=True):
        assert_close(run(trace), theirs, rtol=1e-12, atol=1e-12)


def test_other_steps_and_shapes_are_refused():
    linear, deep = members(1, lambda: nn.Linear(X, CLASSES)), members(1)
    with pytest.raises(Unlike, match=r"another has|number"):
        with_common_graph(traces(linear[0] + deep[0], linear[1] + deep[1]))
    narrow = members(1, lambda: nn.Sequential(nn.Linear(X, 4), nn.Linear(4, CLASSES)))
    wide = members(1, lambda: nn.Sequential(nn.Linear(X, 6), nn.Linear(6, CLASSES)))
    with pytest.raises(Unlike, match="number 1 differs from number 0"):
        with_common_graph(traces(narrow[0] + wide[0], narrow[1] + wide[1]))
    with pytest.raises(Unlike):
        with_common_graph(traces(*members(2), elbos=[vbd.VBD_ELBO(), vbd.VBD_ELBO(num_particles=2)]))


def test_a_number_that_no_tensor_can_stand_for_is_named():
    linear, rates = lambda: nn.Linear(X, CLASSES), iter((0.1, 0.4))
    pairs = members(2, lambda: nn.Sequential(linear(), nn.Hardtanh(-next(rates))))
    with pytest.raises(Unlike, match=r"more than tensors and numbers: .*hardtanh.*0\.4.*, and there .*0\.1"):
        with_common_graph(traces(*pairs))
