"""One training step (guide, model, ELBO, gradients) as a graph of plain tensor operators, with no Pyro left in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.prototype import untouched
from pyro_vbd.random_state import get_random_state, set_random_state
from pyro_vbd.value_checks import recorded_checks

__all__ = ["NotStatic", "Trace", "trace_step", "trainable_leaves", "undisturbed"]


class NotStatic(Exception):
    """Raised where a model cannot be traced, with the reason."""


@dataclass(frozen=True)
class Trace:
    """A traced step, ``graph(*inputs, kl_weight, *parameters, *buffers, *constants) -> (report, *gradients)``.

    The report is one vector: the loss, the log-likelihood, and the KL of each of ``sites``. Buffers are changed in place,
    as the model's modules change them (BatchNorm's). Noise is fresh at each call, from torch's random state.
    """

    graph: fx.GraphModule
    parameters: list[Tensor]
    buffers: list[Tensor]
    #: Tensors that the model holds and nobody trains: hyperparameters, frozen weights, data in a closure.
    constants: list[Tensor]
    sites: tuple[str, ...]
    #: Checks of values, which cannot be part of a graph, each with the number of the input that it is of.
    checks: list[tuple[Callable[[Tensor], None], int]]

    @property
    def tensors(self) -> list[Tensor]:
        """What the graph takes after the inputs and the KL weight."""
        return [*self.parameters, *self.buffers, *self.constants]

    def check_values(self, inputs: Sequence[Tensor]) -> None:
        """Refuse inputs whose values the model would refuse, while Pyro's validation is on.

        Raises:
            ValueError: what the model's own check raises.
        """
        if is_validation_enabled():
            for check, number in self.checks:
                check(inputs[number])


def trace_step(
    elbo: VBD_ELBO,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    parameters: Sequence[Tensor],
    args: Any,
    kwargs: Any,
) -> Trace:
    """Trace ``elbo.terms`` and its gradients in ``parameters``, leaving random states and buffers as they were.

    Numbers are part of the graph (N/B among them), except ``kl_weight``; shapes too.

    Raises:
        NotStatic: where the model asks for the value of a tensor, makes a tensor whose shape depends on values, or draws
            from Python's or NumPy's random state.
    """
    leaves, spec = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    inputs = [leaves[i] for i in places]
    sites: tuple[str, ...] = ()
    checks: list[tuple[Callable[[Tensor], None], int]] = []

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        nonlocal sites
        *tensors, kl_weight = tensors  # type: ignore[assignment]
        values = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            values[place] = tensor
        args, kwargs = tree_unflatten(values, spec)
        before = _python_random_state()
        with _kl_weight(elbo, kl_weight), pyro.validation_enabled(False), recorded_checks() as found:
            terms = elbo.terms(model, guide, *args, **kwargs)
        if _python_random_state() != before:
            raise NotStatic("it draws from Python's or NumPy's random state")
        checks.extend((check, place) for check, value in found for place in _same_data(value, tensors))
        sites = tuple(terms.kl_by_site)
        gradients = torch.autograd.grad(-terms.elbo, list(parameters))
        return terms.report().detach(), *gradients

    weight = torch.tensor(float(elbo.kl_weight), dtype=parameters[0].dtype, device=parameters[0].device)
    with undisturbed(model), torch.enable_grad(), _modules_that_run(model, guide) as modules:
        try:
            with _one_fake_mode():
                graph = make_fx(step)(*inputs, weight)
        except NotStatic:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise NotStatic(f"it cannot be traced ({type(error).__name__}: {reason[0] if reason else ''})") from error
    _check_shapes(graph)
    known = {id(buffer) for module in modules for buffer in module.buffers(recurse=False)}
    buffers, constants = _lift(graph, parameters, known)
    return Trace(graph, list(parameters), buffers, constants, sites, checks)


def trainable_leaves(loss: Tensor) -> list[Tensor]:
    """Every leaf that a loss depends on and that requires a gradient, wherever the model keeps it."""
    found: list[Tensor] = []
    seen, ahead = set(), [loss.grad_fn]
    while ahead:
        node: Any = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        ahead.extend(parent for parent, _ in node.next_functions)
    return found


# --- inside ----------------------------------------------------------------------------------------------------------


def _python_random_state() -> tuple[Any, ...]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002  (the state that pyro.set_rng_seed sets)
    return random.getstate(), state["state"]["pos"], state["state"]["key"].tobytes()  # type: ignore[call-overload]


def _one_fake_mode() -> AbstractContextManager[Any]:
    """One mode for all shapes that make_fx notes down: it would make one for each value, half of the time of a trace."""
    try:  # no public part of torch
        from torch._guards import TracingContext, tracing
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError:
        return nullcontext()
    return tracing(TracingContext(FakeTensorMode()))


@contextmanager
def _kl_weight(elbo: VBD_ELBO, weight: Tensor) -> Iterator[None]:
    kept, elbo.kl_weight = elbo.kl_weight, weight  # type: ignore[assignment]
    try:
        yield
    finally:
        elbo.kl_weight = kept


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Leave random states and buffers as they were, in a mode in which every layer can be traced."""
    state = get_random_state()
    onednn = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # its kernel for LSTM and GRU cannot be traced
    try:
        with untouched(model):
            yield
    finally:
        torch.backends.mkldnn.enabled = onednn
        set_random_state(state)


@contextmanager
def _modules_that_run(*parts: Any) -> Iterator[set[nn.Module]]:
    modules = {module for part in parts if isinstance(part, nn.Module) for module in part.modules()}
    hook = register_module_forward_pre_hook(lambda module, _: modules.add(module))
    try:
        yield modules
    finally:
        hook.remove()


def _check_shapes(graph: fx.GraphModule) -> None:
    """Refuse what has another shape at other values (a choice by a mask, say): the graph would keep the present one."""
    for node in graph.graph.nodes:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        if node.target is torch.ops.aten.index.Tensor:  # by numbers it has one shape alone
            indices = [index for index in node.args[1] if index is not None]
            if all(index.meta["val"].dtype not in (torch.bool, torch.uint8) for index in indices):
                continue
        raise NotStatic(f"the shape that {node.target} gives depends on values")


def _same_data(value: Tensor, inputs: Sequence[Tensor]) -> list[int]:
    """The number of the input whose numbers ``value`` holds, in any shape."""
    return [
        i for i, tensor in enumerate(inputs)
        if (tensor.data_ptr(), tensor.numel(), tensor.dtype) == (value.data_ptr(), value.numel(), value.dtype)
    ][:1]  # fmt: skip


def _lift(graph: fx.GraphModule, parameters: Sequence[Tensor], buffers: set[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Make every tensor that the graph reads an input: first the parameters, then buffers, then the rest."""
    held = {node.target for node in graph.graph.find_nodes(op="get_attr")}  # each tensor that make_fx has met
    graph.graph.eliminate_dead_code()
    nodes: dict[int, list[fx.Node]] = {id(parameter): [] for parameter in parameters}
    tensors: dict[int, Tensor] = {id(parameter): parameter for parameter in parameters}
    for node in graph.graph.find_nodes(op="get_attr"):
        tensor = getattr(graph, node.target)
        tensors.setdefault(id(tensor), tensor)
        nodes.setdefault(id(tensor), []).append(node)
    trained = len(parameters)
    rest = sorted(list(nodes)[trained:], key=lambda key: key not in buffers)
    order = [*list(nodes)[:trained], *rest]
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for number, key in enumerate(order):
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"tensor_{number}")
        for node in nodes[key]:
            node.replace_all_uses_with(last)
            graph.graph.erase_node(node)
    for name in held:
        delattr(graph, name)
    graph.graph.set_codegen(fx.graph.CodeGen())
    graph.recompile()
    lifted = [tensors[key].detach() for key in order[trained:]]
    count = sum(k in buffers for k in rest)
    return lifted[:count], lifted[count:]
