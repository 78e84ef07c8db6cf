"""``vbd.compile``: the whole training step traced once and compiled, so that Pyro runs once and not at every step."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from pyro.infer.elbo import ELBOModule
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.optim import Optimizer

from pyro_vbd.compiling.compiled_step import CompiledStep
from pyro_vbd.compiling.graph_key import Holdings, flat_inputs, input_key, obstacle
from pyro_vbd.compiling.known_gradients import loss_with_gradients
from pyro_vbd.compiling.static_model import static_trace
from pyro_vbd.compiling.tracing import NotStatic
from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.value_checks import recorded_checks

__all__ = ["CompiledELBO", "compile"]

logger = logging.getLogger(__name__)

#: Calls that ran eagerly for want of a graph, before a warning says that most do.
_MANY = 100


def _silent(words: str) -> None:
    """Tell nobody."""


def _own(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in memory of their own: the next call writes over that of a CUDA graph."""
    return [gradient.clone() if gradient.is_cuda else gradient for gradient in gradients]


def compile(loss: ELBOModule, max_graphs: int = 4, progress: Callable[[str], object] = _silent) -> CompiledELBO:
    """Trace and compile ``elbo(model, guide)``, for use in its place.

    ::

        loss = vbd.compile(vbd.VBD_ELBO()(model, guide))
        optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
        for x, y in loader:
            optimizer.zero_grad()
            loss(x, y).backward()
            optimizer.step()

    ``loss.update(optimizer, x, y)`` takes these three steps at once, and faster: Adam becomes part of the graph.

    The guide, the model, the objective and its gradients become a graph of plain operators, compiled by Inductor (on CUDA
    recorded as a CUDA graph): at the first call, in ten seconds to two minutes. It gives the same losses and gradients as
    the eager one under the same seed, up to rounding. Everything that is a number is built into a graph; it is traced
    again for inputs of other shapes, in another mode (training, evaluation), when a number that a module or the ELBO holds
    has changed, and when another module stands in the place of one. ``elbo.kl_weight`` may be assigned between steps,
    parameters and hyperparameter tensors changed in place.

    Where the graph would not be right, a call runs eagerly. It does so with one warning where the model is not static (it
    asks for the value of a tensor, makes a tensor whose shape depends on values, draws from Python's or NumPy's random
    state, counts its calls, or gives another graph at other data and parameters), where a parameter has hooks of its
    gradient, for inputs that require a gradient, and under autocast; and silently inside a handler of Pyro, under
    ``torch.no_grad()``, and for inputs of further shapes once there are ``max_graphs`` (with a warning where these are most
    of many calls). Numbers that a model reads from elsewhere (a closure, a prior) must not change.

    Args:
        loss: ``VBD_ELBO()(model, guide)``.
        max_graphs: how many graphs to make, one for each shape of the inputs and each mode.
        progress: called with a few words when something begins that takes seconds, and with ``""`` when it has ended.

    Raises:
        TypeError: for the loss of another ELBO, which may look at values.
        ValueError: for ``max_graphs`` below 1.
    """
    objective = type(loss.elbo) if isinstance(loss, ELBOModule) else type(loss)
    # a subclass may have other terms, but the loss has to be made of them
    if getattr(objective, "differentiable_loss", None) is not VBD_ELBO.differentiable_loss or not hasattr(loss, "elbo"):
        raise TypeError(f"compile takes VBD_ELBO()(model, guide), and was given that of {objective.__name__}")
    if max_graphs < 1:
        raise ValueError(f"max_graphs={max_graphs} compiles nothing: use 1 or more")
    return CompiledELBO(loss.model, loss.guide, loss.elbo, max_graphs, progress)  # type: ignore[arg-type]


class CompiledELBO(ELBOModule):
    """``elbo(model, guide)``, compiled; made by :func:`compile`.

    Its parameters, and its state, are those of the eager module under the same names.
    """

    elbo: VBD_ELBO

    def __init__(self, model: Any, guide: Any, elbo: VBD_ELBO, max_graphs: int, progress: Callable[[str], object]) -> None:
        super().__init__(model, guide, elbo)
        self.max_graphs, self._progress = max_graphs, progress
        self._warned: set[str] = set()
        self._calls, self._beyond = 0, 0
        self._forget()

    def _forget(self) -> None:
        self._healthy: Tensor | None = None
        self._is_static = True  # as far as is known
        self._steps: dict[Any, CompiledStep] = {}
        self._holdings = Holdings()

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, whose ``backward()`` adds the gradients that the graph has computed to the parameters."""
        step, inputs = self._step(args, kwargs) if torch.is_grad_enabled() else (None, [])
        if step is None:
            return super().forward(*args, **kwargs)  # type: ignore[no-any-return]
        with self._told(step, None, inputs):
            report, gradients = step.gradients(inputs)
        return loss_with_gradients(report[0], _own(gradients), step.trace.parameters)

    def update(self, optimizer: Optimizer, *args: Any, check: bool = True, **kwargs: Any) -> tuple[Tensor, Sequence[str]]:
        """Take one step of training: gradients, and the optimizer's step with them.

        Adam's update runs inside the graph, on the optimizer's own state; any other optimizer takes its step after it. A
        loss that is not finite leaves the parameters as they were, and so do all that come after it, until
        :meth:`restart`: nothing has to wait for the value of the loss.

        Args:
            optimizer: of the parameters; its learning rate may be assigned between steps.
            args: the model's inputs.
            check: whether to look at the values of the inputs, while Pyro's validation is on.
            kwargs: the model's inputs by keyword.

        Returns:
            One vector, the loss, the log-likelihood and the KL of each site, and the names of the sites.
        """
        with torch.enable_grad():
            step, inputs = self._step(args, kwargs, check)
            if step is None:
                return self._update_eagerly(optimizer, args, kwargs, check)
            with self._told(step, optimizer, inputs):
                return step.update(optimizer, inputs), step.trace.sites

    def gradients(self, *args: Any, check: bool = True, **kwargs: Any) -> tuple[Tensor, Sequence[str]]:
        """Set the gradients of the parameters to those of the loss, and return what :meth:`update` does."""
        with torch.enable_grad():
            step, inputs = self._step(args, kwargs, check)
            if step is None:
                return self._gradients_eagerly(args, kwargs, check)
            with self._told(step, None, inputs):
                report, gradients = step.gradients(inputs)
        for parameter, gradient in zip(step.trace.parameters, _own(gradients), strict=True):
            parameter.grad = gradient
        return report, step.trace.sites

    def restart(self) -> None:
        """Let updates take effect again after a loss that was not finite."""
        if self._healthy is not None:
            self._healthy.fill_(True)

    # --- which graph -------------------------------------------------------------------------------------------------

    def _step(self, args: Any, kwargs: Any, check: bool = True) -> tuple[CompiledStep | None, list[Tensor]]:
        """The compiled step for these inputs and the tensors among them; None where the call has to run eagerly."""
        self._calls += 1
        if _PYRO_STACK:
            return None, []  # handlers around the call have their say
        if self._holdings.have_moved():
            self._forget()
        leaves, structure = flat_inputs(args, kwargs)
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if reason := obstacle(leaves):
            self._warn_eager(reason)
            return None, inputs
        key = (*input_key(leaves, structure), *self._holdings.key())
        if key not in self._steps:
            if not self._is_static:
                return None, inputs
            if len(self._steps) >= self.max_graphs:
                self._count_beyond()
                return None, inputs
            step = self._trace(args, kwargs)
            if step is None:
                return None, inputs
            if not self._holdings:  # also those that the guide made for itself in its first run
                self._holdings = Holdings((self.model, self.guide, self.elbo), step.trace.parameters)
            self._steps[key := (*input_key(leaves, structure), *self._holdings.key())] = step
        step = self._steps[key]
        if check:
            step.trace.check_values(inputs)
        return step, inputs

    def _trace(self, args: Any, kwargs: Any) -> CompiledStep | None:
        self._progress("tracing the step")
        try:
            trace = static_trace(self.elbo, self.model, self.guide, args, kwargs)
        except NotStatic as error:
            self._is_static = False
            self._warn_eager(str(error))
            return None
        finally:
            self._progress("")
        if self._healthy is None:
            self._healthy = torch.ones((), dtype=torch.bool, device=trace.parameters[0].device)
        return CompiledStep(trace, self.elbo, self._healthy, self._warn)

    def _update_eagerly(self, optimizer: Optimizer, args: Any, kwargs: Any, check: bool) -> tuple[Tensor, Sequence[str]]:
        optimizer.zero_grad()
        report, sites = self._gradients_eagerly(args, kwargs, check)
        if self._healthy is None:
            self._healthy = torch.ones((), dtype=torch.bool, device=report.device)
        if bool(self._healthy.logical_and_(report[0].isfinite())):
            optimizer.step()
        return report, sites

    def _gradients_eagerly(self, args: Any, kwargs: Any, check: bool) -> tuple[Tensor, Sequence[str]]:
        with nullcontext() if check else recorded_checks():
            return self.elbo.report_and_grads(self.model, self.guide, *args, **kwargs)

    # --- what is said about it ---------------------------------------------------------------------------------------

    @contextmanager
    def _told(self, step: CompiledStep, optimizer: Optimizer | None, inputs: list[Tensor]) -> Iterator[None]:
        """Report that a program is being compiled, if this step has none yet."""
        if step.is_ready(optimizer):
            yield
            return
        start = time.perf_counter()
        self._progress("compiling the step")
        try:
            yield
        finally:
            self._progress("")
        shapes = [tuple(tensor.shape) for tensor in inputs]
        logger.info("compiled a step for inputs of shapes %s in %.1f s", shapes, time.perf_counter() - start)

    def _count_beyond(self) -> None:
        self._beyond += 1
        if self._beyond >= _MANY and 2 * self._beyond > self._calls:
            self._warn(
                "most steps run without being compiled, since inputs have more shapes, or modules more settings, than "
                f"max_graphs={self.max_graphs}: make them alike, or allow more graphs in vbd.compile"
            )

    def _warn_eager(self, reason: str) -> None:
        self._warn(f"a step runs without being compiled: {reason}")

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            warnings.warn(sentence, stacklevel=2)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not the graphs, which are of the present parameters."""
        state = dict(super().__getstate__())
        return {**state, "_healthy": None, "_steps": {}, "_holdings": Holdings(), "_progress": _silent}
