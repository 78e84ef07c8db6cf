"""A model under many draws of its guide: log p(y, w) and log q(w), batch by batch of the data, many draws at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import unwrap
from torch import Tensor
from torch.utils._pytree import tree_map

from pyro_vbd.distributions import base_distribution
from pyro_vbd.draws.model_run import ModelRun
from pyro_vbd.draws.plate import DrawPlate, Traces, data_frames
from pyro_vbd.inputs import lengths, part
from pyro_vbd.modes import in_mode
from pyro_vbd.paired_traces import check_pair
from pyro_vbd.placement import brought, common_device
from pyro_vbd.prototype import latent_sites, observed_sites, sample_sites
from pyro_vbd.supervised import SupervisedModel

__all__ = ["DrawRuns", "all_data", "draw_runs"]

# Values of latents in one run, over all its draws: 64 MB of float32.
_MAX_LATENTS = 2**24


class DrawRuns:
    """A model and its guide on a data set; made by :func:`draw_runs`."""

    def __init__(
        self, model: Callable[..., Any], guide: Callable[..., Any], data: tuple[Any, ...], batch_size: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} holds nothing: use 1 or more")
        check_pair(model, guide)
        self._model, self._guide, self._data = model, guide, data
        self._device = common_device(model, guide)
        self.num_data = _length(data)
        self._batch = min(batch_size, self.num_data)
        if isinstance(inner := unwrap(model), SupervisedModel):  # takes no more at once: a test set may be larger
            self._batch = min(self._batch, inner.num_data)
        self.first = first = self.part(slice(0, self._batch))
        with self._explained():
            guide_trace = poutine.trace(guide).get_trace(*first)
        self._check_latents(latent_sites(guide_trace))
        with self._explained():
            model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*first)
        #: The sites of guide and model in a run of one draw on the first batch.
        self.sites = {**sample_sites(guide_trace), **sample_sites(model_trace)}
        self.latents, self.observed = latent_sites(model_trace), observed_sites(model_trace)
        #: Observed sites that are no data, such as a weight that ``poutine.condition`` holds: the same for all data.
        self.held = self._held()
        #: Observed sites of data; a factor has no value.
        self.targets = [name for name, site in self.observed.items() if site["value"].numel() and name not in self.held]
        self._check(latent_sites(guide_trace))
        #: N as the model's plate of the data has it; it may differ from the number of data at hand.
        self.full_size = self._full_size()
        again = poutine.trace(guide).get_trace(*first)
        #: Latents that the guide puts at one point, whatever the draw.
        self.points = {
            name
            for name, site in latent_sites(guide_trace).items()
            if isinstance(base_distribution(site["fn"]), dist.Delta)
            and torch.equal(site["value"], latent_sites(again)[name]["value"])
        }
        self._plate = DrawPlate(model, guide, (guide_trace, model_trace))
        numel = sum(site["value"].numel() for site in self.latents.values())
        room = min(batch_size // self._batch, _MAX_LATENTS // max(numel, 1))
        with pyro.validation_enabled(True):
            is_right = room > 1 and self._plate.is_right(first, self._numbers, rtol=1e-4, atol=1e-4)
        self._at_once = room if is_right else 1

    def __call__(self, num_samples: int) -> Iterator[ModelRun]:
        """Every draw on every batch of data. The draws are the outer loop: a draw meets all data."""
        checks = is_validation_enabled()
        for start in range(0, num_samples, self._at_once):
            draws = slice(start, min(start + self._at_once, num_samples))
            guide_trace: poutine.Trace | None = None
            for begin in range(0, self.num_data, self._batch):
                data = slice(begin, min(begin + self._batch, self.num_data))
                with pyro.validation_enabled(checks and start == 0):  # looks at every datum once
                    run = self._run(draws, data, self._at_once > 1, guide_trace)
                guide_trace = run.guide_trace
                yield run

    def predictive(self, run: ModelRun) -> dict[str, Tensor]:
        """A draw of each target given the latents of a run, of shape ``(K, *site shape)``."""
        if len(self.targets) > 1:  # one may depend on another, and so on a draw of it
            held = {name: site["value"] for name, site in self.observed.items() if name in self.held}
            free = poutine.condition(poutine.uncondition(self._model), held)
            run = self._run(run.draws, run.data, run.together, run.guide_trace, free)
        found = {}
        for name in self.targets:
            site: Any = run.model_trace.nodes[name]
            value = site["fn"].sample() if site["is_observed"] else site["value"]
            found[name] = run.stacked(value, len(self.sites[name]["fn"].batch_shape) + site["fn"].event_dim)
        return found

    def part(self, index: slice | Tensor) -> tuple[Any, ...]:
        """The data at an index, as the model's positional arguments, where the model lies."""
        some = part(self._data, index)
        return brought(some, self._device)  # type: ignore[no-any-return]

    def data_plate(self, site: str) -> Any:
        """The frame of the plate that tells the data of an observed site apart; None where no plate, or several, could."""
        frames = data_frames(self.observed[site], self._batch)
        return frames[0] if len(frames) == 1 else None

    @property
    def num_batches(self) -> int:
        """Batches of data in a pass."""
        return -(-self.num_data // self._batch)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._batch == self.num_data:
                raise
            raise ValueError(
                f"on {self._batch} of the {self.num_data} data the model fails ({str(error).splitlines()[0]}): if it needs "
                f"all of them at once, pass batch_size={self.num_data}"
            ) from error

    def _held(self) -> set[str]:
        """Observed sites in no plate, beside one in the plate of the data, whose value does not follow the data."""
        if not any(self.data_plate(name) for name in self.observed):
            return set()
        alone = {name for name, site in self.observed.items() if site["value"].numel() and not site["cond_indep_stack"]}
        if alone and self._batch < self.num_data:
            less = self._observed_in_part()
            alone = {name for name in alone if torch.equal(self.observed[name]["value"], less[name]["value"])}
        return alone

    def _observed_in_part(self) -> dict[str, Any]:
        """The observed sites in a run on a part of the first batch, under the same latents."""
        less = self.part(slice(0, self._batch // 2 or 1))
        values = {name: site["value"] for name, site in self.latents.items()}
        with self._explained():
            return observed_sites(poutine.trace(poutine.condition(self._model, values)).get_trace(*less))

    def _full_size(self) -> int:
        frames = [frame for name in self.observed if (frame := self.data_plate(name)) is not None]
        if self._batch < self.num_data:  # is the plate of this size, or does it follow the data?
            names = {frame.name for frame in frames}
            sites = self._observed_in_part().values()
            frames = [frame for site in sites for frame in site["cond_indep_stack"] if frame.name in names]
        return max((f.full_size for f in frames if f.full_size not in (None, f.size)), default=self.num_data)

    def _run(
        self,
        draws: slice,
        data: slice,
        together: bool,
        guide_trace: poutine.Trace | None = None,
        model: Callable[..., Any] | None = None,
    ) -> ModelRun:
        count = draws.stop - draws.start if together else None
        guide_trace, model_trace = self._plate.run(self.part(data), count, guide_trace, model)
        return ModelRun(draws, data, model_trace, guide_trace, self.sites, together)

    def _numbers(self, traces: Traces, count: int | None) -> list[Tensor]:
        guide_trace, model_trace = traces
        draws, data = slice(0, count or 1), slice(0, self._batch)
        run = ModelRun(draws, data, model_trace, guide_trace, self.sites, count is not None)
        return [*run.log_prior().values(), *run.log_likelihood().values()]

    def _check_latents(self, known: Mapping[str, Any]) -> None:
        for name, site in known.items():
            sizes = [frame.size for frame in site["cond_indep_stack"] if frame.vectorized]
            if self._batch < self.num_data and self.num_data in sizes:
                raise ValueError(
                    f"the latent {name!r} is drawn once for each datum, and cannot meet a part of them: pass "
                    f"batch_size={self.num_data} to run the model on all data at once"
                )

    def _check(self, known: Mapping[str, Any]) -> None:
        if not self.observed:
            raise ValueError("the model observes nothing here: pass the targets, and let the model take them by obs=")
        if unknown := sorted(set(self.latents) - set(known)):
            raise ValueError(f"the model has the latents {unknown}, which the guide does not know: use its own guide")
        for name in self.observed:
            if self._batch < self.num_data and self.data_plate(name) is None and name not in self.held:
                raise ValueError(
                    f"the observed {name!r} stands in no plate of its {self._batch} data alone, or in two plates of that "
                    f"size: put it into a plate over the data, or pass batch_size={self.num_data} to run it on all at once"
                )


@contextmanager
def draw_runs(
    model: Callable[..., Any], guide: Callable[..., Any], data: tuple[Any, ...], batch_size: int
) -> Iterator[DrawRuns]:
    """Runs of a model under draws of its guide, in evaluation mode, without gradients, unseen by handlers around.

    Args:
        model: a Pyro model.
        guide: its posterior.
        data: the model's positional arguments: tensors, or tuples, lists and dicts of them, all of one length N.
        batch_size: data times draws in one run of the model. Where they leave room for several draws, and two at once
            give what they give one by one, draws run in parallel.

    Raises:
        ValueError: for no data, a model that observes nothing or has latents unknown to the guide, a guide that was made
            for another model; where N > ``batch_size``, for a model without a plate that tells the data apart, or with a
            latent for each datum.
    """
    with torch.no_grad(), poutine.block(), in_mode(model, False), in_mode(guide, False):
        yield DrawRuns(model, guide, data, batch_size)


def all_data(x: Any, y: Any = None) -> tuple[Any, ...]:
    """The model's arguments for the whole data set.

    Args:
        x: inputs, a tensor, or a tuple or dict of them; or, with y=None, an iterable of batches, each a tuple of all the
            model's arguments.
        y: targets.

    Raises:
        ValueError: for inputs without targets, or no batches.
    """
    if y is not None:
        return x, y
    if isinstance(x, Tensor | tuple | Mapping) or not isinstance(x, Iterable):
        raise ValueError("there are no targets: pass y, or batches of inputs and targets in place of x")
    batches = [tuple(batch) for batch in x]
    if not batches:
        raise ValueError("there are no data: x gave no batch")
    return tree_map(lambda *leaves: torch.cat(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *batches)  # type: ignore[no-any-return]


def _length(data: Any) -> int:
    sizes = lengths(data)
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"the data hold tensors of lengths {sorted(sizes)}: use tensors of one length, the number of data, above 0"
        )
    return sizes.pop()
