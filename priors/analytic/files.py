"""Gaussians and mixtures in folders: analytic.json says what the tensors of a safetensors file are.

The file holds `means` (K, *event), `weights` (K,) and, for the i-th of the covariances,
`covariance.i.NAME` for what makes it; a mixture's components may share one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..pretrained.formats import Options
from ..pretrained.safe_files import (
    publish,
    read_json,
    regular_file,
    sha256,
    write_json,
)
from ..pretrained.weights import read_weights
from ..ranges import pair
from .covariance import Covariance
from .gaussian import Gaussian
from .mixture import Mixture
from .parameters import constant
from .parts import KINDS, Parts, covariance_of, parts_of
from .structured import FactorAnalysis

INDEX, TENSORS = "analytic.json", "analytic.safetensors"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def save_analytic(
    prior: Gaussian | Mixture,
    folder: str | os.PathLike[str],
    *,
    factor_dtype: torch.dtype = torch.float64,
) -> None:
    """Write a Gaussian or a Mixture as a folder for `load`; safetensors and JSON.

    Args:
        prior: with data_range and sigma_range, which are kept.
        folder: written into, made where missing; other files there stay.
        factor_dtype: of the factors of FactorAnalysis, most of a file; all else is float64.
    Raises:
        TypeError: another prior, or a covariance of one's own.
    """
    if not isinstance(prior, Gaussian | Mixture):
        raise TypeError(f"prior must be a Gaussian or a Mixture, got {type(prior).__name__}")
    mixture = isinstance(prior, Mixture)
    each: tuple[Covariance, ...] = prior.C if isinstance(prior, Mixture) else (prior.C,)
    unique = list({id(C): C for C in each}.values())
    places = {id(C): i for i, C in enumerate(unique)}
    tensors: Parts = {}
    if isinstance(prior, Mixture):
        tensors["means"] = prior._means.reshape(-1, *prior.event_shape)
        tensors["weights"] = prior._weights
    else:
        tensors["means"] = prior._mean.unsqueeze(0)
    for i, C in enumerate(unique):
        for name, value in parts_of(C).items():
            small = isinstance(C, FactorAnalysis) and name == "factor"
            tensors[f"covariance.{i}.{name}"] = value.to(factor_dtype) if small else value
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".draft-") as name:
        draft = Path(name)
        save_file(
            {key: t.cpu().clone().contiguous() for key, t in tensors.items()}, draft / TENSORS
        )
        facts = {
            "format": 1,
            "prior": "Mixture" if mixture else "Gaussian",
            "data_range": None if prior.data_range is None else list(prior.data_range),
            "sigma_range": list(prior.sigma_range),
            "dtype": str(prior.dtype).removeprefix("torch."),
            "kinds": [type(C).__name__ for C in unique],
            "covariances": [places[id(C)] for C in each],
            "sha256": sha256(draft / TENSORS),
        }
        write_json(draft / INDEX, facts)
        publish(draft, target, [TENSORS], INDEX)


def is_analytic(folder: Path) -> bool:
    """Whether a folder holds a Gaussian or a Mixture."""
    return (folder / INDEX).is_file()


def read_analytic(folder: Path, options: Options, max_parameters: int) -> Gaussian | Mixture:
    """The prior that `save_analytic` wrote. Raises as `load` says."""
    asked = (options.event_shape, options.data_range, options.class_label)
    if any(option is not None for option in asked):
        raise ValueError(
            "an analytic prior states its own shape and units and has no classes: leave "
            "event_shape, data_range and class_label out"
        )
    device = options.device
    facts = read_json(folder, INDEX)
    kinds, places = _structure(facts)
    path = regular_file(folder, TENSORS)
    read = read_weights(path, max_parameters=max_parameters)
    if sha256(path) != facts.get("sha256"):
        raise ValueError(f"{TENSORS} is not the file that {INDEX} recorded: its SHA-256 differs")
    mixture = facts["prior"] == "Mixture"
    tensors = {name: _real(value, name).to(device) for name, value in read.items()}
    means = _means(tensors, len(places))
    size = means[0].numel()
    try:
        unique = [covariance_of(kind, _taken(tensors, i), size) for i, kind in enumerate(kinds)]
        span = facts.get("data_range")
        data_range = None if span is None else pair("data_range", span)
        sigma_range = pair("sigma_range", facts.get("sigma_range"), positive=True)
        weights = tensors.pop("weights", None) if mixture else None
        if mixture and weights is None:
            raise ValueError("a Mixture needs weights")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{INDEX} and {TENSORS} do not fit: {error}") from error
    if tensors:
        raise ValueError(f"{TENSORS} holds tensors that nothing needs: {', '.join(tensors)}"[:300])
    prior: Gaussian | Mixture
    if weights is None:
        prior = Gaussian(means[0], unique[0], data_range=data_range)
    else:
        each = [unique[i] for i in places]
        prior = Mixture(means, each, weights, data_range=data_range)
    prior.sigma_range, prior.dtype = options.sigma_range or sigma_range, _DTYPES[facts["dtype"]]
    return prior


def _structure(facts: dict[str, Any]) -> tuple[list[str], list[int]]:
    kinds, places = facts.get("kinds"), facts.get("covariances")
    if (
        facts.get("format") != 1
        or facts.get("prior") not in ("Gaussian", "Mixture")
        or not isinstance(kinds, list)
        or not all(isinstance(kind, str) and kind in KINDS for kind in kinds)
    ):
        raise ValueError(
            f"{INDEX} must say format 1, a Gaussian or Mixture, and kinds of covariances among "
            f"{', '.join(KINDS)}"
        )
    whole = isinstance(places, list) and all(type(i) is int for i in places)
    if not whole or not places or set(places) != set(range(len(kinds))):
        raise ValueError(
            f"{INDEX} must say which of {len(kinds)} covariances each component has, and use all"
        )
    if facts["prior"] == "Gaussian" and len(places) != 1:
        raise ValueError(f"{INDEX}: a Gaussian has one covariance, got {len(places)}")
    dtype = facts.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{INDEX}: dtype must be among {', '.join(_DTYPES)}, got {dtype!r:.80}")
    return kinds, places


def _real(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{TENSORS}: {name} must be a floating tensor, got {came}")
    return constant(value, name)


def _means(tensors: Parts, count: int) -> Tensor:
    """The means, taken out: as many as components, of at least one value."""
    if "means" not in tensors:
        raise ValueError(f"{TENSORS} holds no means")
    means = tensors.pop("means")
    if means.ndim < 1 or len(means) != count or not means.numel():
        raise ValueError(
            f"{TENSORS}: means must have shape ({count}, *event), as {INDEX} names {count} "
            f"components, got {tuple(means.shape)}"
        )
    return means


def _taken(tensors: Parts, i: int) -> Parts:
    """The tensors of the i-th covariance, taken out."""
    prefix = f"covariance.{i}."
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}
