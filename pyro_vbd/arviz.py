"""Posterior draws, pointwise log-likelihoods and densities in ArviZ's container, for its checks, tables and plots."""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vbd.draws.arrays import BY_DATUM, BY_DRAW, draw_arrays
from pyro_vbd.draws.dimension_names import dimension_names
from pyro_vbd.draws.runs import DrawRuns, all_data, draw_runs
from pyro_vbd.posterior.hierarchy import find_hierarchy
from pyro_vbd.prototype import Prototyped, untouched
from pyro_vbd.site_patterns import idle
from pyro_vbd.version import __version__

__all__ = ["import_arviz", "to_arviz"]

_GROUPS = (*BY_DRAW, *BY_DATUM, "constant_data")
# Numbers that are held without having been asked for: 40 MB of float32.
_MANY = 10_000_000


def import_arviz() -> Any:
    """ArviZ, of either major version.

    Raises:
        ImportError: if it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module("arviz")
    except ImportError as error:
        raise ImportError("ArviZ cannot be imported: pip install 'pyro-vbd[arviz]'") from error


def to_arviz(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    y: Any = None,
    num_samples: int = 100,
    *,
    sites: str | Sequence[str] | None = None,
    groups: str | Collection[str] = _GROUPS,
    subset: int | None = None,
    batch_size: int = 1000,
    progress: bool = False,
) -> Any:
    r"""Draws :math:`W_s \sim q(W)` and what the model makes of them, for ArviZ 0.23 and 1.x.

    ======================== =================================================================================
    ``posterior``            draws of the latents in ``sites``; all but the weights by default
    ``log_prior``            :math:`\log p(W_s)` by site, summed over its elements
    ``sample_stats``         ``lp``, :math:`\log p(y, W_s)`, and ``log_q``, :math:`\log q(W_s)`
    ``log_likelihood``       :math:`\log p(y_i | x_i, W_s)` of each datum, never scaled by the plate's N/B
    ``posterior_predictive`` a draw of each datum's target given :math:`W_s`
    ``observed_data``        the targets
    ``constant_data``        the inputs
    ======================== =================================================================================

    A weight that ``poutine.condition`` holds is no target: it counts in ``lp`` alone.

    There is one ``chain``. ``lp`` is over all data, and is there only if x and y are all the data of the model's plate, as
    a test set is not. It counts the prior density of a gamma at its point, whereas ``log_q`` leaves points out: with a
    delta for q(gamma), :math:`\mathrm{lp} - \log q` is (up to a constant) the log weight of a draw for
    :math:`p(W | y, \gamma^*)`, the posterior given the optimal scales, and says nothing of the scales' own uncertainty.

    Dimensions have the names of plates (``data``) and of modules (``fc1.out``, ``fc1.in``), a gamma those of its weight
    that it is not shared along; any other is named as ArviZ does (``w_dim_0``).

    Memory: ``log_likelihood`` and ``posterior_predictive`` hold S numbers for each datum (of the ``subset``), ``posterior``
    S for each element of a site, but one for a latent that stands at a point. More than 10 million in all are refused,
    unless ``subset`` or ``sites`` ask for them. While they are put together there is a second copy of one variable.

    Args:
        model: a Pyro model: a ``vbd`` model, or any with a plate over the data.
        guide: its posterior, a :class:`~pyro_vbd.VBDGuide` or another.
        x: inputs, the model's first argument: a tensor of shape ``(N, ...)``, or a tuple or dict of them. Or, with y=None,
            a DataLoader or list of batches, each a tuple of all the model's arguments, the targets last.
        y: targets, the model's second argument.
        num_samples: S >= 1.
        sites: patterns of latents for ``posterior``: ``"*"`` for all, ``["fc1.*", "tau"]`` for some.
        groups: which to make, or the one.
        subset: how many data the groups with something of each datum hold, drawn at random without replacement; their
            coordinate tells which. N asks for all, however many.
        batch_size: data times draws in one run of the model.
        progress: whether to show a bar.

    Returns:
        An ``arviz.InferenceData`` (0.23) or an ``xarray.DataTree`` (1.x), for ``az.loo``, ``az.compare``, ``az.summary``,
        the plots, and (1.x) ``az.loo_approximate_posterior(d, d.sample_stats.lp, d.sample_stats.log_q)``.

    Raises:
        ImportError: without ArviZ.
        ValueError: for fewer than one draw, no data or targets, unknown groups or sites, more than 10 million numbers that
            were not asked for, or a model that cannot run on a batch of the data.

    Warning:
        The draws are independent: their ``r_hat`` and ``ess`` are perfect, whatever the guide is worth. How far it is from
        the posterior shows in :func:`~pyro_vbd.pareto_k`. For a network ``az.loo`` often warns of Pareto k > 0.7; then
        neither its elpd nor an ``az.compare`` made of it is to be relied on.
    """
    import_arviz()
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} draws nothing: use 1 or more")
    groups = [groups] if isinstance(groups, str) else groups
    if unknown := sorted(set(groups) - set(_GROUPS)):
        raise ValueError(f"the groups {unknown} are unknown: use some of {', '.join(_GROUPS)}")
    if subset is not None and subset < 1:
        raise ValueError(f"subset={subset} takes no data: use 1 or more, or None")
    data = all_data(x, y)
    with draw_runs(model, guide, data, batch_size) as runs:
        hierarchy = _hierarchy(model, runs)
        kept = _choose(sites, list(runs.latents), list(hierarchy.weights))
        count = runs.num_data if subset is None else min(subset, runs.num_data)
        if count < runs.num_data and (unplated := [name for name in runs.targets if runs.data_plate(name) is None]):
            raise ValueError(f"no plate tells the data of {unplated} apart: put them into one, or leave subset=None")
        chosen = torch.randperm(runs.num_data, device="cpu")[:count].sort().values
        _check_size(runs, groups, num_samples, count if subset is None else 0, kept if sites is None else [])
        with tqdm(total=num_samples * runs.num_data, disable=not progress, desc="to_arviz", unit_scale=True) as bar:
            made = draw_arrays(runs, num_samples, [g for g in groups if g != "constant_data"], kept, chosen, bar.update)
        names = dimension_names(runs.sites, model, hierarchy)
        plates = {name: plate.name for name in runs.observed if (plate := runs.data_plate(name)) is not None}
    if "constant_data" in groups:
        inputs = _by_name("x", data[0] if len(data) == 2 else data[:-1])
        some = count < runs.num_data
        made["constant_data"] = {n: (v[chosen.to(v.device)] if some else v).detach().cpu() for n, v in inputs.items()}
        names |= {name: (next(iter(plates.values()), "data"),) for name in inputs}
    index = dict.fromkeys(plates.values(), chosen.numpy())
    return _container({group: _dataset(group, values, names, index, num_samples) for group, values in made.items()})


def _hierarchy(model: Any, runs: DrawRuns) -> Any:
    with untouched(model):
        if isinstance(model, Prototyped):
            return find_hierarchy(model.prototype, (), {})
        return find_hierarchy(model, runs.first, {})


def _choose(patterns: str | Sequence[str] | None, latents: list[str], weights: list[str]) -> list[str]:
    if patterns is None:
        return [name for name in latents if name not in weights]
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in idle(patterns, latents):
        raise ValueError(f"sites={pattern!r} matches no latent: the model has {latents}")
    return [name for name in latents if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _check_size(runs: DrawRuns, groups: Collection[str], num_samples: int, num_data: int, sites: Iterable[str]) -> None:
    """Refuse to hold very many numbers that were not asked for."""
    per_datum = sum(group in groups for group in ("log_likelihood", "posterior_predictive")) * num_data
    if num_samples * per_datum > _MANY:
        raise ValueError(
            f"{num_samples} draws for {num_data} data are {num_samples * per_datum:,} numbers: pass subset=1000 for some "
            f"of the data, subset={num_data} to hold all, or fewer groups or draws"
        )
    elements = sum(runs.latents[name]["value"].numel() for name in sites if name not in runs.points)
    if "posterior" in groups and num_samples * elements > _MANY:
        raise ValueError(
            f"{num_samples} draws of all latents but the weights are {num_samples * elements:,} numbers: name those to "
            'hold by sites= ("*" for all)'
        )


def _by_name(name: str, value: Any) -> dict[str, Tensor]:
    """The tensors in a structure of tuples, lists and dicts, by their path."""
    if isinstance(value, Tensor):
        return {name: value}
    items: Iterable[Any] = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, tuple | list):
        items = enumerate(value)
    return {path: leaf for key, part in items for path, leaf in _by_name(f"{name}.{key}", part).items()}


def _dataset(
    group: str,
    values: Mapping[str, Tensor],
    names: Mapping[str, Sequence[str]],
    index: Mapping[str, np.ndarray],
    num_samples: int,
) -> Any:
    """One group as an ``xarray.Dataset``."""
    import xarray as xr

    sampled = group not in ("observed_data", "constant_data")
    lead = ("chain", "draw") if sampled else ()
    coords: dict[str, np.ndarray] = {"chain": np.arange(1), "draw": np.arange(num_samples)} if sampled else {}
    variables = {}
    for name, value in values.items():
        array = _as_array(value)[None] if sampled else _as_array(value[0] if group == "observed_data" else value)
        dims = list(lead)
        for d, size in enumerate(array.shape[len(lead) :]):
            known = names.get(name, ())
            dim = known[d] if d < len(known) else f"{name}_dim_{d}"
            positions = index[dim] if dim in index and len(index[dim]) == size else np.arange(size)
            if len(coords.setdefault(dim, positions)) != size:  # a name that stands for another length elsewhere
                dim = f"{name}_dim_{d}"
                coords[dim] = np.arange(size)
            dims.append(dim)
        variables[name] = (dims, array)
    attrs = {"created_at": datetime.datetime.now(datetime.UTC).isoformat(), **_LIBRARY}
    return xr.Dataset(variables, coords, {**attrs, "sample_dims": list(lead)} if sampled else attrs)


_LIBRARY = {
    "creation_library": "pyro_vbd",
    "creation_library_version": __version__,
    "creation_library_language": "Python",
    "inference_library": "pyro_vbd",
    "inference_library_version": __version__,
}


def _as_array(value: Tensor) -> np.ndarray:
    return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())


def _container(groups: Mapping[str, Any]) -> Any:
    az = import_arviz()
    if int(az.__version__.split(".")[0]) < 1:
        container = az.InferenceData(attrs=_LIBRARY, **groups)
        if "posterior" in groups:  # left out where it has no variables, but its draws are counted by az.loo
            container.posterior = groups["posterior"]
        return container
    import xarray as xr

    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=_LIBRARY), **groups})
