"""The formats of single checkpoint files: each knows its tensors' names and builds their prior.

A format is a module of this room with

    NAME                                what to call it
    recognises(content)                 whether the names in a file's content are its own
    build(content, settings, options)   the prior; settings is what `load` was given, or None
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..network import NetworkPrior
from ..ranges import pair, rescaled
from .safe_files import plain_file, read_json
from .weights import read_weights

FORMATS: tuple[str, ...] = ("adm", "edm", "score_sde")
"""Names of the modules, in the order in which they are asked."""

READERS: dict[str, str] = {".pkl": "edm_pickle"}
"""Suffixes whose files `weights.read_weights` cannot read -> modules with one that can."""

Pair = tuple[float, float]
Settings = dict[str, Any] | str | None


@dataclass(frozen=True)
class Options:
    """What `load` was asked for; None where the file or its format decides.

    Attributes:
        event_shape: shape of one image.
        data_range: what the user's images span.
        sigma_range: noise levels, in data units.
        class_label: a class, or "null" for the class that stands for none.
        device, dtype: of the weights.
        source: what to call the file in errors.
    """

    event_shape: tuple[int, ...] | None
    data_range: Pair | None
    sigma_range: Pair | None
    class_label: int | str | None
    device: torch.device
    dtype: torch.dtype
    source: str

    def prior(
        self,
        network: nn.Module,
        parametrization: str,
        event_shape: tuple[int, ...],
        *,
        sigma_range: Pair,
        network_range: Pair = (-1.0, 1.0),
        time: Callable[[Tensor], Tensor] | None = None,
        **more: Any,
    ) -> NetworkPrior:
        """The prior of a network, in the units that `load` was asked for.

        Args:
            event_shape, sigma_range: used where `load` was given none; sigma_range in network
                units.
            more: what else NetworkPrior takes.
        """
        images = network_range if self.data_range is None else pair("data_range", self.data_range)
        if self.sigma_range is not None:
            levels = pair("sigma_range", self.sigma_range, positive=True)
        else:
            levels = rescaled(sigma_range, network_range, images)
        return NetworkPrior(
            network.eval().requires_grad_(False),
            parametrization,
            self.event_shape or event_shape,
            data_range=images,
            network_range=network_range,
            time=time,
            sigma_range=levels,
            **more,
        )


def read_checkpoint(path: Path, max_parameters: int) -> dict[str, Any]:
    """A checkpoint file's content, by the reader of its suffix."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        return read_weights(path, max_parameters=max_parameters)
    plain_file(path)
    module: Any = importlib.import_module(f".{reader}", __package__)
    return module.read_weights(path, max_parameters=max_parameters)  # type: ignore[no-any-return]


def settings_beside(path: Path) -> dict[str, Any] | None:
    """What model.json says beside model.safetensors, or another checkpoint of its name."""
    name = f"{path.stem}.json"
    return read_json(path.parent, name) if os.path.lexists(path.parent / name) else None


def build(content: dict[str, Any], settings: Settings, options: Options) -> NetworkPrior:
    """The prior of a checkpoint's content, by the first format that recognises it."""
    names = []
    for name in FORMATS:
        module: Any = importlib.import_module(f".{name}", __package__)
        if module.recognises(content):
            return module.build(content, settings, options)  # type: ignore[no-any-return]
        names.append(module.NAME)
    found = list(dict.fromkeys(_names(content)))[:6]
    raise ValueError(
        f"{options.source} is of no known format: {', '.join(names) or 'none known'}. It holds "
        f"{', '.join(found) or 'nothing'}, ... For a network of your own use priors.from_network"
    )


def _names(content: dict[str, Any]) -> Iterator[str]:
    """Names of a checkpoint's entries, two levels deep."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner!s:.80}" for inner in list(value)[:4])
        else:
            yield f"{name:.80}"
