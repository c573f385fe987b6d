"""Tensors kept in float64 and used at the dtype and device of whatever comes in."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor


class Parameters:
    """An object of float64 tensors with a twin for every dtype and device that asks for one.

    Decompositions are done once, in float64; `like(x)` gives the same object cast to x, made at
    the first call and kept.
    """

    def like(self, x: Tensor) -> Self:
        """This object with its floating tensors (and parts) at the dtype and device of x."""
        key = (x.dtype, x.device)
        if self.__dict__.get("_key") == key:
            return self
        twins = self.__dict__.setdefault("_twins", {})
        if key not in twins:
            twin = copy.copy(self)
            twin.__dict__ = {
                name: _cast(value, x) for name, value in self.__dict__.items() if name != "_twins"
            }
            twin.__dict__["_key"] = key
            twins[key] = twin
        return twins[key]


def _cast(value: Any, x: Tensor) -> Any:
    if isinstance(value, Parameters):
        return value.like(x)
    if isinstance(value, tuple):
        return tuple(_cast(part, x) for part in value)
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype=x.dtype, device=x.device)
    return value.to(x.device) if isinstance(value, Tensor) else value


def constant(value: Any, name: str) -> Tensor:
    """value as a detached float64 tensor; refused unless real and finite."""
    # A number would become float32 on its way to a tensor.
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be real numbers, got {tensor.dtype}")
    tensor = tensor.detach().to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} must be finite, got {bad} values that are not")
    return tensor


def floating_dtype(value: Any) -> torch.dtype:
    """The dtype in which a parameter was given; the default one for numbers and integers."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.dtype
    return torch.get_default_dtype()


def private_generator(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a fresh one seeded by the system; never the global one."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def unit_noise(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """N(0, 1) in the dtype and device of `like`, drawn on the generator's own device."""
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)


def check_count(n: int) -> int:
    """n, refused unless an integer >= 1."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be an integer >= 1, got {n!r}")
    return n
