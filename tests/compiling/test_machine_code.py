"""Graphs as compiled programs: the same numbers, the same noise, changes in place; and what happens where that fails."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyro_vbd.compiling.machine_code import _Recording, machine_code


def step(x, held):
    held.add_(1.0)
    return (x * torch.randn_like(x)).sum() + held.sum(), held.exp()


def test_a_program_computes_what_its_graph_does():
    x, held = torch.randn(8), torch.zeros(3)
    graph = make_fx(step)(x, held.clone())
    messages = []
    program = machine_code(graph, [x, held], 1, messages.append)
    assert not messages
    assert torch.equal(held, torch.zeros(3))  # the example is not changed
    results = []
    for run in (program, step):
        torch.manual_seed(3)
        mine = torch.zeros(3) if run is step else held  # a CUDA graph keeps the tensors that are not fed
        results.append([[value.clone() for value in run(x, mine)] for _ in range(3)])
    assert_close(results[0], results[1])
    assert torch.equal(held, torch.full((3,), 3.0))
    assert results[0][0][0] != results[0][1][0]


@pytest.mark.parametrize("error", [RuntimeError("no compiler\nand more"), RuntimeError()])
def test_where_compiling_fails_the_graph_runs_as_it_is(monkeypatch, error):
    tried = []

    def fail(graph, *_, **__):
        tried.append(graph)
        raise error

    monkeypatch.setattr(torch._inductor, "compile", fail)
    x, held = torch.randn(8), torch.zeros(3)
    graph = make_fx(step)(x, held.clone())
    messages = []
    assert machine_code(graph, [x, held], 1, messages.append) is graph
    assert len(messages) == len(tried) == 1
    assert messages[0].startswith("a step runs as a graph that is not compiled: RuntimeError")
    assert "and more" not in messages[0]


def test_products_are_kept_apart_from_what_is_added(monkeypatch):
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, *_, **__: graph)
    x = torch.randn(3, 3)
    program = machine_code(make_fx(lambda x: x @ x + x.exp())(x), [x], 1, pytest.fail)
    assert torch.ops.aten.sub.Tensor in [node.target for node in program.graph.nodes]


def test_inputs_on_the_cpu_are_not_recorded(monkeypatch):
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, *_, **__: graph)
    with FakeTensorMode():  # which needs no GPU
        x, held = torch.randn(8, device="cpu"), torch.zeros(3, device="cuda")
    messages = []
    graph = make_fx(step)(torch.randn(8), torch.zeros(3))
    assert machine_code(graph, [x, held], 1, messages.append) is graph
    assert messages == [
        "a step runs without being recorded as a CUDA graph: an input is on the CPU, and its number would be kept"
    ]


def test_where_inductor_cannot_fuse_a_graph_its_loops_are_smaller(monkeypatch):
    tried, messages = [], []
    compile_graph = torch._inductor.compile

    def fail_at_first(graph, example, options):
        tried.append(options)
        if len(tried) == 1:
            raise torch._inductor.exc.InductorError(KeyError("buf112"), None)
        return compile_graph(graph, example, options=options)

    monkeypatch.setattr(torch._inductor, "compile", fail_at_first)
    x, held = torch.randn(8), torch.zeros(3)
    program = machine_code(make_fx(step)(x, held.clone()), [x, held], 1, messages.append)
    assert not messages
    assert [sorted(options) for options in tried] == [["fallback_random"], ["fallback_random", "max_fusion_size"]]
    assert_close(program(x, held)[1], torch.ones(3).exp())


@pytest.fixture
def recording(monkeypatch):
    """One that adds 1, without a GPU: what is recorded gives 7; it fails with what is in ``failures``."""
    failures, messages = [], []

    def record(self, inputs):
        self._fed, self._outputs = [inputs[0].clone()], [torch.full((2,), 7.0)]
        self._graph = type("Graph", (), {"replay": lambda self: None})()
        if failures:
            self._is_astray = "astray" in str(failures[0])
            raise failures[0]
        self._recorded = self._known(inputs[1:])

    monkeypatch.setattr(_Recording, "_record", record)
    found = _Recording(lambda x, *_: [x + 1.0], 1, messages.append)
    return found, failures, messages


def test_where_a_recording_fails_the_program_runs_as_it_is(recording):
    run, failures, messages = recording
    x = torch.zeros(2)
    run.renew([x, x.clone()])
    held = torch.zeros(3)
    assert torch.equal(run(x, held)[0], torch.full((2,), 7.0))  # recorded anew, for another tensor that is held
    failures.append(RuntimeError("out of memory\nand more"))
    for _ in range(2):
        assert torch.equal(run(x, torch.zeros(3))[0], x + 1.0)
    assert messages == ["a step runs without being recorded as a CUDA graph: RuntimeError: out of memory"]
    assert run._graph is None  # and its memory is free


@pytest.mark.parametrize("inference", [False, True])
def test_a_recording_gets_what_is_fed_and_holds_while_what_stays_is_as_it_was(recording, inference):
    run, _, _ = recording
    with torch.inference_mode(inference):
        held = torch.zeros(3, device="cpu")
    run.renew([torch.zeros(2), held])
    graph = run._graph
    first, *_ = run(torch.ones(2), held)
    assert torch.equal(run._fed[0], torch.ones(2))
    run._outputs[0].fill_(0.0)  # as the next call would
    assert torch.equal(first, torch.full((2,), 7.0))
    assert run._graph is graph
    if not inference:
        held.add_(1.0)  # a recording keeps the numbers of tensors on the CPU
        run(torch.ones(2), held)
        assert run._graph is not graph


def test_tensors_that_could_not_be_set_back_are_an_error(recording):
    run, failures, messages = recording
    failures.append(RuntimeError("astray"))
    with pytest.raises(RuntimeError, match="astray"):
        run.renew([torch.zeros(2)])
    assert not messages
