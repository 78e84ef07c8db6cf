"""One run in several processes: each takes its share of every batch, and the gradients of all are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, final

import pyro
import torch
import torch.distributed as dist
from torch import Tensor

from pyro_vbd.guide import VBDGuide
from pyro_vbd.inputs import length
from pyro_vbd.prototype import observed_sites, run_with, untouched
from pyro_vbd.training.batches import Batches

__all__ = ["Processes"]


@final
class Processes:
    r"""The processes of torch.distributed's default group; this one alone, where there is none.

    With :math:`B_r` data of a batch of B in process r, and :math:`L_r` the bound (eq. 10 of Liu et al. 2019) on these
    alone, the bound on the whole batch and its gradient are means weighted by the shares, in which the KL counts once:

    .. math:: L_r = \frac{N}{B_r} \sum_{i \in r} E_q \log p(y_i | x_i, W) - KL, \qquad
              L = \sum_r \frac{B_r}{B} L_r = \frac{N}{B} \sum_i E_q \log p(y_i | x_i, W) - KL

    Each process draws noise of its own. A method that is called in one process has to be called in all.
    """

    def __init__(self) -> None:
        several = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if several else 0
        self.size = dist.get_world_size() if several else 1
        on_gpu = several and torch.cuda.is_available() and "nccl" in dist.get_backend()
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    # --- state -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give the tensors of all processes the values of the first one's."""
        if self.size > 1:
            for tensor in tensors:
                value = tensor.detach().clone(memory_format=torch.contiguous_format)
                dist.broadcast(value, 0)
                tensor.copy_(value)

    def draw_apart(self) -> None:
        """Let the random states of all processes but the first differ from here on, also where they were the same."""
        if self.size > 1:
            seed = int(torch.randint(2**31, (), device="cpu"))
            if self.rank:
                pyro.set_rng_seed((seed + self.rank) % 2**31)

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    # --- data --------------------------------------------------------------------------------------------------------

    def share(self, data: Iterable[Any], epoch: int) -> Iterable[Any]:
        """The part of this process in a pass through the data.

        :class:`~pyro_vbd.Batches` are shared out: each batch is cut into as many parts as there are processes, in the
        order that the first one draws. Anything else is taken to be this process's part, as that of a DataLoader with a
        DistributedSampler is; the sampler is told the epoch.

        Raises:
            ValueError: for batches with fewer data than there are processes.
        """
        tell = getattr(getattr(data, "sampler", None), "set_epoch", None)
        if tell is not None:
            tell(epoch)
        if self.size > 1 and isinstance(data, Batches):
            smallest = min(data.batch_size, len(data.tensors[0]))
            if smallest < self.size:
                raise ValueError(
                    f"batches of {smallest} data leave some of the {self.size} processes without any: use a batch_size of "
                    f"{self.size} or more, which counts the data of all processes"
                )
            return self._parts(data)
        return data

    def _parts(self, data: Batches) -> Iterator[tuple[Tensor, ...]]:
        order = data.order()
        common = order.to(self._device)
        dist.broadcast(common, 0)
        for index in common.to(order.device).split(data.batch_size):
            own = index.tensor_split(self.size)[self.rank]
            if len(own):  # the last batch may be too small for all
                yield data.take(own)

    def in_step(self, batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...] | None, float]]:
        """Batches with this process's part of all the data that the processes take in the same step.

        A process whose batches end before those of others gets None, and the part 0, until theirs have ended.
        """
        if self.size == 1:
            yield from ((batch, 1.0) for batch in batches)
            return
        own = iter(batches)
        while True:
            batch = next(own, None)
            count = 0 if batch is None else num_data(batch)
            (total,) = self.total(count)
            if not total:
                return
            yield (batch, count / total) if count else (None, 0.0)

    # --- sums --------------------------------------------------------------------------------------------------------

    def total(self, *values: float) -> list[float]:
        """The sum of each value over processes."""
        sums = torch.tensor(values, dtype=torch.float64, device=self._device)
        if self.size > 1:
            dist.all_reduce(sums)
        return sums.tolist()  # type: ignore[no-any-return]

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.total(value)[0])

    def average(self, parameters: Sequence[Tensor], report: Tensor, part: float) -> Tensor:
        """Replace the gradients by their mean over processes, weighted by the parts; the mean of the reports.

        A parameter that has no gradient in any process is left without one.
        """
        if self.size == 1:
            return report
        held = [parameter.grad is not None for parameter in parameters]
        # those of an embedding may be sparse
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in parameters]
        tensors = [report, *gradients]
        wide = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
        values = torch.cat([tensor.detach().flatten().to(wide) for tensor in tensors]).mul_(part)
        everything = torch.cat([values, torch.tensor(held, dtype=wide, device=values.device)])
        dist.all_reduce(everything)
        report_sum, *sums, holders = everything.split([*(tensor.numel() for tensor in tensors), len(held)])
        for parameter, value, holder in zip(parameters, sums, holders.tolist(), strict=True):
            parameter.grad = value.view_as(parameter).to(parameter.dtype) if holder else None
        return report_sum.to(report.dtype)

    # --- what cannot be put together ---------------------------------------------------------------------------------

    def check_plates(self, model: Callable[..., Any], guide: VBDGuide, batch: tuple[Any, ...]) -> None:
        """Refuse a model whose likelihood counts the data of a batch and not those of the whole data set.

        Raises:
            ValueError: for observations in no plate as large as the processes' first batches together, or a batch
                without tensors.
        """
        if self.size == 1:
            return
        (total,) = self.total(num_data(batch))
        with untouched(model):
            sites = observed_sites(run_with(guide.median(*batch), model, batch, {}))
        for name, site in sites.items():
            largest = max((frame.full_size or frame.size for frame in site["cond_indep_stack"]), default=1)
            if largest < total:
                raise ValueError(
                    f"the observed site {name!r} stands in a plate of {largest} data at most, but {self.size} processes "
                    f"take {total} in a step: state pyro.plate(..., size of the whole data set, subsample=...)"
                )


def num_data(batch: tuple[Any, ...]) -> int:
    """How many data a batch holds, by its first tensor.

    Raises:
        ValueError: for a batch without a tensor that has a dimension.
    """
    if (count := length(batch)) is None:
        raise ValueError(
            "a batch holds no tensor with a dimension, by whose length it could be weighed against those of other processes"
        )
    return count
