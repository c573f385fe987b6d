"""Training that goes on from a prior's weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..network import NetworkPrior, SpaceToDepth
from ..pretrained.loading import load


def start_from(
    source: str, network: nn.Module, prior: NetworkPrior, sigma_data: float | None
) -> float:
    """Give `network`, of the prior in training, the weights of another; returns its sigma_data.

    Args:
        source: a name or folder, as `load` takes it.
        sigma_data: what the recipe demands, or None for that of the source.
    Raises:
        ValueError: a source whose network, parametrisation, schedule or range is another.
    """
    found = load(source)
    stated = f"init {source}"
    if not isinstance(found, NetworkPrior):
        raise ValueError(f"{stated}: is a {type(found).__name__}, expected a network on images")
    theirs, ours = _law(found), _law(prior)
    if sigma_data is None or prior.parametrization != "edm":
        theirs["sigma_data"] = ours["sigma_data"] = None
    for name, value in ours.items():
        if theirs[name] != value:
            raise ValueError(f"{stated}: its {name} is {theirs[name]}, the recipe's {value}")
    state, wanted = bare_unet(found.network).state_dict(), bare_unet(network).state_dict()
    problems = [
        f"{name}: {tuple(state[name].shape) if name in state else 'missing'} for "
        f"{tuple(wanted[name].shape) if name in wanted else 'nothing'}"
        for name in sorted(state.keys() | wanted.keys())
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape
    ]
    if problems:
        raise ValueError(
            f"{stated}: its weights do not fit the recipe's network: {'; '.join(problems[:4])}"
            + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        )
    bare_unet(network).load_state_dict(state)
    return found.sigma_data if sigma_data is None else sigma_data


def bare_unet(network: Any) -> Any:
    """The UNet2DModel itself, without the wrappers that fold pixels or choose a class."""
    inner = network.network if isinstance(network, SpaceToDepth) else network
    return getattr(inner, "unet", inner)


def _law(prior: NetworkPrior) -> dict[str, Any]:
    """What decides the meaning of a network's input and output."""
    edm = prior.parametrization == "edm"
    inner = prior.network
    return {
        "parametrization": prior.parametrization,
        "schedule": None if edm else (type(prior.schedule).__name__, vars(prior.schedule)),
        "network_range": prior.network_range,
        "patch": inner.patch if isinstance(inner, SpaceToDepth) else 1,
        "edm_sign": prior.edm_sign,
        "sigma_data": prior.sigma_data if edm else None,
    }
