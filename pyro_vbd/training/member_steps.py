"""Steps of several runs at once: one traced step mapped over their tensors by ``torch.vmap``."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from pyro_vbd.compiling.adam import AdamUpdate, is_plain_adam
from pyro_vbd.compiling.common_graph import Unlike, with_common_graph
from pyro_vbd.compiling.compiled_step import CompiledStep, adam_key, as_graph
from pyro_vbd.compiling.graph_key import Holdings, flat_inputs, input_key, obstacle
from pyro_vbd.compiling.machine_code import machine_code
from pyro_vbd.compiling.mappable import with_reshapes
from pyro_vbd.compiling.static_model import static_trace
from pyro_vbd.compiling.tracing import NotStatic, Trace
from pyro_vbd.training.run import Fit
from pyro_vbd.training.stacks import Stacks

__all__ = ["MemberSteps"]

logger = logging.getLogger(__name__)


@final
class MemberSteps:
    """Takes steps of K runs at once, all on the same batches, each with noise of its own.

    Within :meth:`training` the members' parameters, buffers and optimizers' state are in stacks, of shape ``(K, ...)``;
    after it they are in their own places again. A member stays as it is while its ``stop`` is set, and from a loss on that
    is not finite.

    Args:
        runs: the members, each with a model, a guide and a plain Adam of its own.
        compile: whether to compile the step for batches of the first one's shape; others run as traced graphs.
        progress: called with a few words when something begins that takes seconds, and with ``""`` when it has ended.
    """

    def __init__(
        self,
        runs: Sequence[Fit],
        compile: bool,
        progress: Callable[[str], object],
    ) -> None:
        self._runs, self._compile, self._progress = runs, compile, progress
        parameters = [list(run.parameters.values()) for run in runs]
        pairs = zip(runs, parameters, strict=True)
        self._holdings = [Holdings((run.model, run.guide, run.elbo), trained) for run, trained in pairs]
        # one boolean for each, whether updates take effect
        self._healthy = [torch.ones((), dtype=torch.bool, device=trained[0].device) for trained in parameters]
        self._steps: dict[Any, _MappedStep] = {}
        self._built_in: tuple[Any, ...] = ()
        self._stacks = Stacks()

    @contextmanager
    def training(self) -> Iterator[None]:
        """A pass of training, in which nobody else looks at the members' tensors or changes anything of theirs.

        Raises:
            ValueError: for parameters that have been replaced, or an optimizer that is not Adam as in the paper.
        """
        for number, (run, healthy) in enumerate(zip(self._runs, self._healthy, strict=True)):
            if self._holdings[number].have_moved():
                raise ValueError(
                    f"member {number} was given other parameters, buffers or modules in the run: change them in place"
                )
            if not is_plain_adam(run.optimizer, healthy.device):
                raise ValueError(
                    f"member {number} has {type(run.optimizer).__name__} for its optimizer: members train by "
                    "torch.optim.Adam without weight decay, amsgrad or hooks (on a GPU with fused=True)"
                )
        active = [not run.stop for run in self._runs]
        optimizers = [run.optimizer for run in self._runs]
        self._built_in = (*(holdings.key() for holdings in self._holdings), *map(adam_key, optimizers))
        self._steps = {key: step for key, step in self._steps.items() if key[0] == self._built_in}
        with self._stacks.held(active):
            for step in self._steps.values():
                step.gather(self._stacks)
            yield

    def __call__(self, batch: tuple[Any, ...], check: bool = True) -> tuple[Tensor, Sequence[str]]:
        """Take a step with each member; the reports, of shape ``(K, 2 + sites)``, and the names of the sites.

        Args:
            batch: the models' positional arguments.
            check: whether to look at the values of the inputs, while Pyro's validation is on.

        Raises:
            ValueError: for members that cannot be trained at once, and why.
        """
        leaves, structure = flat_inputs(batch, {})
        if reason := obstacle(leaves):
            raise _impossible(reason)
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = self._built_in, input_key(leaves, structure)
        if key not in self._steps:
            self._steps[key] = self._make(batch, inputs)
        step = self._steps[key]
        if check:
            step.trace.check_values(inputs)
        return step(inputs), step.trace.sites

    def _make(self, batch: tuple[Any, ...], inputs: list[Tensor]) -> _MappedStep:
        start = time.perf_counter()
        self._progress("tracing the step")
        try:
            # a member that has failed may hold what no distribution accepts
            with pyro.validation_enabled(is_validation_enabled() and not any(run.failure for run in self._runs)):
                traces = [static_trace(run.elbo, run.model, run.guide, batch, {}) for run in self._runs]
            traces = with_common_graph(traces)
            with_reshapes(traces[0].graph)
            step = _MappedStep(traces, self._runs, self._healthy)
            step.gather(self._stacks)
            self._progress("compiling the step")
            # another one for the smaller batch at the end of each pass would take longer than it saves
            step.make(inputs, self._compile and not self._steps)
        except (NotStatic, Unlike) as error:
            raise _impossible(str(error)) from error
        finally:
            self._progress("")
        shapes = [tuple(tensor.shape) for tensor in inputs]
        logger.info("made a step of %d members for %s in %.1f s", len(self._runs), shapes, time.perf_counter() - start)
        return step


class _MappedStep:
    """The step for batches of one shape."""

    def __init__(self, traces: Sequence[Trace], runs: Sequence[Fit], healthy: Sequence[Tensor]) -> None:
        self.trace = traces[0]
        steps = [CompiledStep(t, run.elbo, one, _warn) for t, run, one in zip(traces, runs, healthy, strict=True)]
        adams = [AdamUpdate(run.optimizer, trace.parameters) for run, trace in zip(runs, traces, strict=True)]
        self._members = list(zip(steps, adams, strict=True))
        if len({(*adam.numbers, *adam.decays) for adam in adams}) > 1:
            raise Unlike("their optimizers differ in more than the learning rate")

    def gather(self, stacks: Stacks) -> None:
        """Take the members' tensors as they are now."""
        taken: list[tuple[Tensor, bool]] = []
        groups = zip(*(step.adam_tensors(adam) for step, adam in self._members), strict=True)
        for members, changes in zip(groups, (True, False), strict=True):
            taken += [stacks.take(tensors, changes) for tensors in zip(*members, strict=True)]
        self._tensors, self._are_stacks = zip(*taken, strict=True)

    @torch.no_grad()
    def make(self, inputs: list[Tensor], compile: bool) -> None:
        """Map the first member's step over all, and compile it if asked to."""
        step, adam = self._members[0]
        places = [None] * len(inputs) + [0 if is_stack else None for is_stack in self._are_stacks]
        mapped = torch.vmap(step.adam_step(adam, len(inputs)), tuple(places), randomness="different")
        tensors = [*inputs, *self._tensors]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")  # in the tracing alone
                graph = as_graph(mapped, tensors)
        except Exception as error:
            raise Unlike(f"vmap cannot map their step ({str(error).strip().splitlines()[0].split('. ')[0]})") from error
        self._program = machine_code(graph, tensors, len(inputs), _warn) if compile else graph

    @torch.no_grad()
    def __call__(self, inputs: list[Tensor]) -> Tensor:
        """Take a step; the reports."""
        (report,) = self._program(*inputs, *self._tensors)
        return report


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)


def _impossible(reason: str) -> ValueError:
    return ValueError(f"members cannot be trained at once: {reason}; train them one by one, with fit")
