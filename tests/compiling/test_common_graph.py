from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.compiling.common_graph import Unlike, with_common_graph
from pyro_vbd.compiling.static_model import static_trace
from pyro_vbd.compiling.tracing import Trace
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


STEPS = {
    "add": lambda x, k: x + k,
    "sub": lambda x, k: x - k,
    "mul": lambda x, k: x * k,
    "div": lambda x, k: x / k,
    "full": lambda x, k: x + torch.full((2,), k, dtype=x.dtype),
    "new_full": lambda x, k: x.new_full((2,), k).mul_(x),
}


def by_hand(step, *numbers, constants=(), sites=("a", "b")):
    """Traces of a step on one tensor and the constants, with one of the numbers each."""
    inputs = torch.randn(2, dtype=torch.float64), *constants
    graphs = [make_fx(lambda x, *_, k=k: step(x, k))(*inputs) for k in numbers]
    return inputs[0], [Trace(graph, [], [], list(constants), sites, []) for graph in graphs]


@pytest.mark.parametrize("name", STEPS)
def test_numbers_of_each_operator(name):
    x, found = by_hand(STEPS[name], 0.1, 0.3, constants=[torch.zeros(2)])
    for trace, number in zip(with_common_graph(found), (0.1, 0.3), strict=True):
        assert torch.equal(trace.graph(x, *trace.constants), STEPS[name](x, number))


def test_numbers_that_are_the_same_stay_numbers():
    _, found = by_hand(STEPS["add"], 0.1, 0.1)
    assert [trace.constants for trace in with_common_graph(found)] == [[], []]


def test_a_longer_step_is_refused():
    _, (one, _) = by_hand(STEPS["add"], 0.1, 0.1)
    _, (two, _) = by_hand(lambda x, k: (x + k).exp(), 0.1, 0.1)
    for pair in ((one, two), (two, one)):
        with pytest.raises(Unlike, match="where one has"):
            with_common_graph(pair)


def test_other_sites_and_tensors_are_refused():
    _, (one, other) = by_hand(STEPS["add"], 0.1, 0.1, constants=[torch.zeros(2)])
    with pytest.raises(Unlike, match=r"its sites are \('a', 'c'\), and there \('a', 'b'\)"):
        with_common_graph([one, replace(other, sites=("a", "c"))])
    for tensor in (torch.zeros(3), torch.zeros(2, dtype=torch.float64), torch.zeros(2, device="meta")):
        with pytest.raises(Unlike, match=r"number 1 differs from number 0 .* a tensor is"):
            with_common_graph([one, replace(other, constants=[tensor])])


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
