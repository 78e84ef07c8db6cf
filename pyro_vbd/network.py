"""Any nn.Module with priors on its weights: the stochastic network, for a Pyro model of your own."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import unwrap
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.func import functional_call

from pyro_vbd.broadcasting import DRAWS_PLATES
from pyro_vbd.inputs import shapes
from pyro_vbd.many_draws import at_each_draw, leading_dimensions
from pyro_vbd.padding import find_padding
from pyro_vbd.parameters import OwnedParameters, announced, module_key, unique_label
from pyro_vbd.priors.prior import Prior
from pyro_vbd.priors.sharing import is_input_first
from pyro_vbd.prototype import Prototyped
from pyro_vbd.recomputation import refuse_recomputation
from pyro_vbd.selection import Where, select

__all__ = ["StochasticNetwork", "lift", "networks_in"]

logger = logging.getLogger(__name__)


class StochasticNetwork(nn.Module, Prototyped):
    """A network that draws its weights from their priors by ``pyro.sample`` at every call; made by :func:`lift`.

    The network inside is a copy. Its Bayesian weights keep the values that the means of a guide start from, and get no
    gradient; all its other parameters are trained as they are. The row of an embedding's ``padding_idx``, which no data
    train, keeps the network's value in every draw.
    """

    def __init__(self, net: nn.Module, prior: Prior | Mapping[str, Prior], where: Where, name: str) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        swapped = _input_first_weights(self.net)
        self.priors = {n: p.input_first() if n in swapped else p for n, p in select(self.net, prior, where).items()}
        self.name, self._label = name, unique_label(name or "network")
        #: Logarithms of the hyperparameters that are learned, by the key of their site.
        self.log_hyperparameters = nn.ParameterDict()
        self._learned_sites: dict[str, str] = {}  # site to key
        for parameter, own_prior in self.priors.items():
            weight = self.net.get_parameter(parameter).requires_grad_(False)
            for site, start in own_prior.learned(self.site(parameter)).items():
                self._learned_sites[site] = key = module_key(site)
                self.log_hyperparameters[key] = nn.Parameter(weight.detach().new_tensor(math.log(start)))
        #: Shape, dtype and device of what it first ran on, ``(args, kwargs)``: compression asks for inputs like these. None
        #: also where an input is an object of another kind.
        self.inputs_seen: Any = None
        self._shapes = {weight: self.net.get_parameter(weight).shape for weight in self.priors}
        self._other_names = _other_names(self.net)
        owners = dict.fromkeys(owner for name in self.priors for owner in self._owners(name))
        refuse_recomputation(owners)
        for owner in owners:
            if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
                owner.sparse = False  # a weight that is computed has no sparse gradient
        self._look_at_padding()
        self.register_load_state_dict_post_hook(_look_again)
        rest = [n for n, _ in self.net.named_parameters() if n not in self.priors]
        logger.info("%s: Bayesian %s; not Bayesian %s", type(net).__name__, list(self.priors), rest)

    def _owners(self, parameter: str) -> list[nn.Module]:
        """All modules that hold a weight."""
        places = [parameter, *self._other_names.get(parameter, [])]
        return [self.net.get_submodule(place.rpartition(".")[0]) for place in places]

    def _look_at_padding(self) -> None:
        self._padding = {n: find_padding(self.net.get_parameter(n), self._owners(n)) for n in self.priors}

    def site(self, parameter: str) -> str:
        """The site name of a parameter of the network."""
        return f"{self.name}.{parameter}" if self.name else parameter

    def input_first_sites(self) -> set[str]:
        """Sites of the weights whose first dimension is that of the inputs: transposed convolutions', embeddings'."""
        return {self.site(name) for name in _input_first_weights(self.net) & set(self.priors)}

    def learned(self) -> dict[str, Tensor]:
        """The present values of the hyperparameters that are :class:`~pyro_vbd.priors.Learned`, by site."""
        return {site: self.log_hyperparameters[key].detach().exp() for site, key in self._learned_sites.items()}

    def prototype(self) -> dict[str, Tensor]:
        """State the priors of all Bayesian weights, and return the weights by parameter name; the network does not run."""
        logarithms = announced(f"{self._label}.log_hyperparameters", self.log_hyperparameters)
        logarithms = {**dict(self.log_hyperparameters.items()), **logarithms}
        with OwnedParameters({site: logarithms[key].exp() for site, key in self._learned_sites.items()}):
            return {
                parameter: prior.sample(self.site(parameter), _value(self.net, parameter).detach())
                for parameter, prior in self.priors.items()
            }

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The network's output under one draw of its weights.

        Where the weights carry leading dimensions (vectorised particles, parallel draws) so does the output, which must
        then be a tensor, or a tuple, list or dict of tensors.

        Raises:
            ValueError: if it is called inside a plate that gives each datum weights of its own, or returns something else
                than tensors for many draws.
            RuntimeError: in ``backward()``, where the network has its activations computed anew
                (``torch.utils.checkpoint``).
        """
        return self.run(inputs, kwargs)[0]

    def run(self, inputs: Any, kwargs: Mapping[str, Any]) -> tuple[Any, int]:
        """The output, and how many dimensions it has in front of the network's own; see :meth:`forward`."""
        _outside_data_plate()
        if self.inputs_seen is None:
            self.inputs_seen = shapes((tuple(inputs), dict(kwargs)))
        weights = self.prototype()
        rest = announced(self._label, self.net)
        lead = leading_dimensions(weights, self._shapes)
        if not lead:
            return self._call({**rest, **weights}, inputs, kwargs), 0

        def call(drawn: dict[str, Any]) -> Any:
            return self._call({**rest, **drawn}, inputs, kwargs)

        return at_each_draw(call, self.net, lead, weights, self._shapes), max(len(lead) - 1, 1)

    def with_padding(self, name: str, weight: Tensor) -> Tensor:
        """A weight of the network, of its shape, with its row of padding as it is in the network."""
        padding = self._padding.get(name)
        return weight if padding is None else padding.put_into(weight, _value(self.net, name))

    def _call(self, weights: dict[str, Any], inputs: Any, kwargs: Mapping[str, Any]) -> Any:
        # torch's own tie_weights=True leaves a module that stands at two places with the value that it was lent
        weights = {name: self.with_padding(name, weight) for name, weight in weights.items()}
        tied = {other: weights[name] for name, others in self._other_names.items() if name in weights for other in others}
        return functional_call(self.net, {**weights, **tied}, tuple(inputs), dict(kwargs), tie_weights=False)


def _other_names(net: nn.Module) -> dict[str, list[str]]:
    """Where else a tensor stands that more than one module holds, by the name that ``named_parameters`` has for it."""
    names: dict[int, list[str]] = {}
    for path, module in net.named_modules():
        own = {"recurse": False, "remove_duplicate": False}
        for name, value in [*module.named_parameters(**own), *module.named_buffers(**own)]:
            names.setdefault(id(value), []).append(f"{path}.{name}".lstrip("."))
    return {first: others for first, *others in names.values() if others}


def _value(net: nn.Module, name: str) -> Tensor:
    """A parameter by its name; any tensor that stands for it under ``torch.func``."""
    path, _, last = name.rpartition(".")
    return getattr(net.get_submodule(path), last)  # type: ignore[no-any-return]


def _look_again(network: StochasticNetwork, _: Any) -> None:
    network._look_at_padding()  # other values have been loaded


def _outside_data_plate() -> None:
    for frame in _PYRO_STACK:
        if isinstance(frame, IndepMessenger) and frame.dim == -1 and frame.name not in DRAWS_PLATES:
            raise ValueError(
                f"a lifted network is called inside the plate {frame.name!r}, which gives each datum weights of its own: "
                "call it before the plate"
            )


def _input_first_weights(net: nn.Module) -> set[str]:
    """Names of the weights with their input dimension first, also where a parametrization makes them."""
    makers = [f"parametrizations.weight.original{number}" for number in ("", 0, 1)]
    modules = [path for path, module in net.named_modules() if is_input_first(module)]
    return {f"{path}.{name}".lstrip(".") for path in modules for name in ("weight", *makers)}


def lift(net: nn.Module, prior: Prior | Mapping[str, Prior], where: Where = None, name: str = "") -> StochasticNetwork:
    """Put priors on the weights of a network, for use inside a Pyro model.

    Args:
        net: any module; it is copied, and left as it was. Its present weights are the initial means.
        prior: one prior for all selected weights, or a dict of name patterns to priors.
        where: which weights; see :func:`~pyro_vbd.selection.select`. By default those of torch.nn layers and raw matrices
            (:func:`~pyro_vbd.selection.is_weight`), but for frozen ones (``requires_grad=False``).
        name: prefix of the site names, for two networks in one model.

    Example::

        encoder = vbd.lift(net, vbd.priors.GaussianUniform())

        def model(x, y=None):
            rate = encoder(x).exp().squeeze(-1)
            with pyro.plate("data", num_data, subsample=x):
                pyro.sample("y", dist.Poisson(rate), obs=y)

    Raises:
        TypeError: if ``prior`` is no prior or ``where`` no selection.
        ValueError: if no weight is selected, or a selected one holds integers or numbers of half precision.
    """
    return StochasticNetwork(net, prior, where, name)


def networks_in(model: Any) -> list[StochasticNetwork]:
    """The lifted networks in a model: one itself, and any submodule, also where handlers of Pyro stand around the model."""
    model = unwrap(model)
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return [module for module in modules if isinstance(module, StochasticNetwork)]
