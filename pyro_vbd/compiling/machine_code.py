"""A graph of tensor operators as machine code: compiled by Inductor, and on CUDA recorded to be launched at one go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pyro_vbd.compiling.product_sums import keep_products_apart
from pyro_vbd.random_state import forked_random_state

__all__ = ["Program", "machine_code"]

logger = logging.getLogger(__name__)

#: A function of tensors that returns tensors, some of the former changed in place.
Program = Callable[..., Sequence[Tensor]]


def machine_code(graph: fx.GraphModule, example: Sequence[Tensor], fed: int, warn: Callable[[str], object]) -> Program:
    """Compile a graph for inputs like ``example``: of their shapes, strides, dtypes and device.

    Random numbers are torch's own, so that a seed gives the same noise as in an ordinary run. Where compiling fails (there
    is no C++ compiler, say) the graph runs as it is, and ``warn`` is told why.

    Args:
        graph: flat inputs and outputs; it is rewritten, with the same values.
        example: inputs; none is changed.
        fed: how many of the first inputs are new tensors at each call. The rest stays where it lies in memory.
        warn: takes one sentence.
    """
    keep_products_apart(graph)
    on_gpu = any(tensor.is_cuda for tensor in example)  # a number of the model's may lie on the CPU
    try:
        program = _compiled(graph, example)
    except Exception as error:
        needs = "Triton" if on_gpu else "a C++ compiler"
        warn(f"a step runs as a graph that is not compiled: {_line(error)}; Inductor needs {needs}")
        return graph
    if not on_gpu:
        return program
    if not all(tensor.is_cuda for tensor in example[:fed]):
        warn("a step runs without being recorded as a CUDA graph: an input is on the CPU, and its number would be kept")
        return program
    recording = _Recording(program, fed, warn)
    recording.renew(example)
    return recording


def _compiled(graph: fx.GraphModule, example: Sequence[Tensor]) -> Program:
    options: dict[str, Any] = {"fallback_random": True}
    try:
        return torch._inductor.compile(graph, list(example), options=options)  # type: ignore[no-any-return]
    except Exception as error:
        # torch 2.14's fusion of CPU loops fails on some graphs: it looks in a loop for a tensor that the loop does not read
        if not isinstance(getattr(error, "inner_exception", None), KeyError):
            raise
        logger.debug("is compiled anew, in smaller loops", exc_info=error)
    return torch._inductor.compile(graph, list(example), options={**options, "max_fusion_size": 8})  # type: ignore[no-any-return]


def _line(error: Exception) -> str:
    logger.debug("compiling failed", exc_info=error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _Recording:
    """A program recorded as a CUDA graph, and launched again on the tensors that it was recorded with.

    What it returns lies in memory of its own, which the next call writes over; the first tensor is copied out of there.
    Where a recording fails the program runs as it is from then on, and ``warn`` is told why.
    """

    def __init__(self, program: Program, fed: int, warn: Callable[[str], object]) -> None:
        self._program, self._count, self._warn = program, fed, warn
        self._forget()

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        if self._recorded is not None and self._known(inputs[self._count :]) != self._recorded:
            self.renew(inputs)  # parameters or an optimizer's state have moved
        if self._recorded is None:
            return self._program(*inputs)
        for mine, given in zip(self._fed, inputs, strict=False):
            mine.copy_(given, non_blocking=True)
        self._graph.replay()
        first, *rest = self._outputs
        return [first.clone(), *rest]

    def renew(self, inputs: Sequence[Tensor]) -> None:
        """Record one call where that can be done, leaving the tensors and the random state as they were."""
        self._forget()  # its memory may be needed
        try:
            self._record(inputs)
        except Exception as error:
            if self._is_astray:
                raise
            self._forget()
            self._warn(f"a step runs without being recorded as a CUDA graph: {_line(error)}")

    def _forget(self) -> None:
        self._fed: list[Tensor] = []
        self._outputs: Sequence[Tensor] = []
        self._graph: Any = None
        #: What the recording holds for; None where there is none.
        self._recorded: list[Any] | None = None
        #: Whether tensors have been changed and not set back.
        self._is_astray = False

    def _record(self, inputs: Sequence[Tensor]) -> None:
        resident = inputs[self._count :]
        self._fed = [tensor.clone() for tensor in inputs[: self._count]]
        kept = [tensor.clone() for tensor in resident]
        with torch.cuda.device(next(tensor.device for tensor in inputs if tensor.is_cuda)):
            current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
            stream.wait_stream(current)
            self._is_astray = True
            try:
                with forked_random_state(), torch.cuda.stream(stream):
                    for _ in range(2):  # libraries allocate their workspace at a first call, which cannot be recorded
                        self._program(*self._fed, *resident)
            finally:
                current.wait_stream(stream)
                for tensor, value in zip(resident, kept, strict=True):
                    if not torch.equal(tensor, value):  # what is only read has to keep its version
                        tensor.copy_(value)
                self._is_astray = False
            self._graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                    self._outputs = self._program(*self._fed, *resident)
            except Exception:
                torch.cuda.set_stream(current)  # a recording that has failed leaves its own
                raise
        self._recorded = self._known(resident)

    @staticmethod
    def _known(resident: Sequence[Tensor]) -> list[Any]:
        """What a recording has built in: places in memory, and the numbers of tensors on the CPU."""
        return [t.data_ptr() if t.is_cuda or t.is_inference() else (t.data_ptr(), t._version) for t in resident]
