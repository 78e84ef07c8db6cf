"""A trace that can be trusted: of a model that is found to take the same steps at every run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pyro_vbd.compiling.tracing import NotStatic, Trace, trace_step, trainable_leaves, undisturbed
from pyro_vbd.elbo import VBD_ELBO

__all__ = ["frozen", "has_hooks", "plain_attributes", "static_trace"]


def static_trace(elbo: VBD_ELBO, model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any) -> Trace:
    """Trace a step twice, at other data, parameters and buffers the second time, and compare graphs, losses and gradients.

    Parameters, buffers and random states are as before when it is done, and the numbers that modules hold as after one
    ordinary run, in which a guide that has not met the data makes its parameters.

    Raises:
        NotStatic: where the two differ, or a trace is not possible.
        Exception: what the model raises when it simply runs.
    """
    with undisturbed(model), torch.enable_grad():  # a guide that has not met the data makes its parameters here
        parameters = trainable_leaves(-elbo.terms(model, guide, *args, **kwargs).elbo)
    if not parameters:
        raise NotStatic("the loss depends on no parameter")
    if len({parameter.device for parameter in parameters}) > 1:
        raise NotStatic("its parameters lie on several devices")
    if any(map(has_hooks, parameters)):
        raise NotStatic("a parameter has hooks of its gradient, which Python runs in backward()")
    with _attributes_kept((model, guide, elbo)) as changed:
        first = trace_step(elbo, model, guide, parameters, args, kwargs)
        held = {id(value): value for value in (*_buffers((model, guide)), *first.buffers, *first.constants)}
        with _moved([*parameters, *filter(_can_move, held.values())]):
            other = _rolled((args, kwargs))
            try:
                second = trace_step(elbo, model, guide, parameters, *other)
            except NotStatic:  # inputs whose order means something
                other = (args, kwargs)
                second = trace_step(elbo, model, guide, parameters, *other)
            if first.graph.code != second.graph.code or first.sites != second.sites:
                raise NotStatic("it takes other steps, or other numbers, at other data, parameters or times")
            if not _agrees(second, elbo, model, guide, *other):
                raise NotStatic("its loss or gradients are not those of its graph")
        if not all(map(_same, first.tensors, second.tensors)):
            raise NotStatic("a tensor that it makes outside of torch is another one at each run")
    if names := changed():
        raise NotStatic(f"it changes its own attributes {names} when it runs")
    return first


def plain_attributes(parts: Sequence[Any]) -> list[tuple[dict[str, Any], str]]:
    """Where the numbers, words and flags of modules and objects stand, as (namespace, name): a graph has them built in.

    Lists, tuples and dicts of such are among them.
    """
    spaces = [vars(module) for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    spaces += [vars(part) for part in parts if not isinstance(part, nn.Module) and hasattr(part, "__dict__")]
    return [
        (space, name) for space in spaces for name, value in space.items()
        if _is_plain(value) and (name not in _OF_ANY_MODULE or name == "training")
    ]  # fmt: skip


def frozen(value: Any) -> Any:
    """A plain attribute as something that can be compared later, and looked up."""
    if isinstance(value, dict):
        return tuple((key, frozen(entry)) for key, entry in value.items())
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def has_hooks(tensor: Tensor) -> bool:
    """Whether ``backward()`` calls functions of a user with the tensor's gradient.

    In a graph some would be called twice (there, and where autograd adds the gradient up), and others never.
    """
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))


# --- inside ----------------------------------------------------------------------------------------------------------

_OF_ANY_MODULE = frozenset(vars(nn.Module()))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | None)


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _agrees(trace: Trace, elbo: VBD_ELBO, model: Any, guide: Any, args: Any, kwargs: Any) -> bool:
    """Whether a graph gives the loss and the gradients of an ordinary run with the same noise, up to rounding."""
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    reference = trace.parameters[0]
    weight = torch.tensor(float(elbo.kl_weight), dtype=reference.dtype, device=reference.device)
    with undisturbed(model), torch.enable_grad():
        terms = elbo.terms(model, guide, *args, **kwargs)
        theirs = [terms.report().detach(), *torch.autograd.grad(-terms.elbo, trace.parameters)]
    with undisturbed(model), torch.no_grad():
        ours = trace.graph(*inputs, weight, *trace.tensors)
    rounding = torch.finfo(reference.dtype).eps ** 0.5
    return all(
        bool((one - other).norm() <= rounding * other.norm()) or not bool(other.isfinite().all())
        for one, other in zip(ours, theirs, strict=True)
    )


def _rolled(inputs: Any) -> Any:
    """The data in another order, the same one for all inputs."""
    return tree_map(lambda v: v.roll(1, 0) if isinstance(v, Tensor) and v.dim() else v, inputs)


def _buffers(parts: Sequence[Any]) -> list[Tensor]:
    return [buffer for part in parts if isinstance(part, nn.Module) for buffer in part.buffers()]


def _can_move(value: Tensor) -> bool:
    return value.is_floating_point() and value.is_contiguous() and not value.is_inference()


@contextmanager
def _moved(values: Sequence[Tensor]) -> Iterator[None]:
    """Other parameters, and other values of what is held beside them, for a while."""
    kept = [value.detach().clone() for value in values]
    try:
        for value in values:
            value.data.mul_(1.01).add_(1e-3)
        yield
    finally:
        for value, was in zip(values, kept, strict=True):
            value.data.copy_(was)


@contextmanager
def _attributes_kept(parts: Sequence[Any]) -> Iterator[Callable[[], list[str]]]:
    """Put the plain attributes back, and tell which ones had changed."""
    places = plain_attributes(parts)
    values = [copy.deepcopy(space[name]) for space, name in places]
    changed: list[str] = []
    try:
        yield lambda: changed
    finally:
        for (space, name), value in zip(places, values, strict=True):
            if space.get(name) != value:
                changed.append(name)
                space[name] = value
