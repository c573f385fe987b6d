"""Gaussians and mixtures in folders: analytic.json says what the tensors of a safetensors file are.

The file holds `means` (K, *event), `weights` (K,) and, for the i-th of the covariances,
`covariance.i.NAME` for what makes it; a mixture's components may share one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..pretrained.formats import Options
from ..pretrained.ranges import pair
from ..pretrained.safe_files import (
    publish,
    read_json,
    regular_file,
    sha256,
    write_json,
)
from ..pretrained.weights import read_weights
from .covariance import Covariance, Dense, Diagonal
from .gaussian import Gaussian
from .mixture import Mixture
from .parameters import constant
from .structured import Circulant, FactorAnalysis, Kronecker, LowRank

INDEX, TENSORS = "analytic.json", "analytic.safetensors"

Parts = dict[str, Tensor]

_KINDS: dict[str, Callable[[Parts], Covariance]] = {
    "Diagonal": lambda t: Diagonal(t["variance"]),
    "Dense": lambda t: Dense(t["matrix"]),
    "Circulant": lambda t: Circulant(t["spectrum"]),
    "LowRank": lambda t: LowRank.from_basis(t["basis"], t["variances"], t["variance"]),
    "FactorAnalysis": lambda t: FactorAnalysis(t["factor"], t["diagonal"]),
    "Kronecker": lambda t: Kronecker(
        *(t[f"factor{i}"] for i in range(len(t) - 1)), variance=t["variance"]
    ),
}


def _parts(C: Covariance) -> Parts:
    """What makes a covariance, float64."""
    if isinstance(C, Diagonal):
        return {"variance": C.eigenvalues}
    if isinstance(C, Circulant):
        return {"spectrum": C.eigenvalues.reshape(C.shape)}
    if isinstance(C, LowRank):
        return {"basis": C.basis, "variances": C.variances, "variance": C.variance}
    if isinstance(C, FactorAnalysis):
        return {"factor": C.factor, "diagonal": C.diagonal}
    if isinstance(C, Kronecker):
        factors = {f"factor{i}": factor for i, factor in enumerate(C.factors)}
        return factors | {"variance": C.variance}
    if isinstance(C, Dense):
        return {"matrix": C.dense()}
    raise TypeError(f"a {type(C).__name__} cannot be saved; known: {', '.join(_KINDS)}")


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
        for name, value in _parts(C).items():
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
    tensors = {name: constant(value, name).to(device) for name, value in read.items()}
    try:
        means, weights = tensors.pop("means"), tensors.pop("weights", torch.ones(1))
        unique = [_KINDS[kind](_taken(tensors, i)) for i, kind in enumerate(kinds)]
        dtype = {"float32": torch.float32, "float64": torch.float64}[facts["dtype"]]
        span = facts["data_range"]
        data_range = None if span is None else pair("data_range", span)
        sigma_range = pair("sigma_range", facts["sigma_range"], positive=True)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{INDEX} and {TENSORS} do not fit: {error} is missing") from error
    if tensors:
        raise ValueError(f"{TENSORS} holds tensors that nothing needs: {', '.join(tensors)}"[:300])
    prior: Gaussian | Mixture
    if facts.get("prior") == "Gaussian":
        prior = Gaussian(means[0], unique[0], data_range=data_range)
    else:
        each = [unique[i] for i in places]
        prior = Mixture(means, each, weights, data_range=data_range)
    prior.sigma_range, prior.dtype = options.sigma_range or sigma_range, dtype
    return prior


def _structure(facts: dict[str, Any]) -> tuple[list[str], list[int]]:
    kinds, places = facts.get("kinds"), facts.get("covariances")
    if (
        facts.get("format") != 1
        or facts.get("prior") not in ("Gaussian", "Mixture")
        or not isinstance(kinds, list)
        or not all(isinstance(kind, str) and kind in _KINDS for kind in kinds)
    ):
        raise ValueError(
            f"{INDEX} must say format 1, a Gaussian or Mixture, and kinds of covariances among "
            f"{', '.join(_KINDS)}"
        )
    if not isinstance(places, list) or not places or not all(
        type(i) is int and 0 <= i < len(kinds) for i in places
    ):  # fmt: skip
        raise ValueError(f"{INDEX} must say which of {len(kinds)} covariances each component has")
    return kinds, places


def _taken(tensors: Parts, i: int) -> Parts:
    """The tensors of the i-th covariance, taken out."""
    prefix = f"covariance.{i}."
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}
