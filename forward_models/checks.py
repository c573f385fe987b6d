"""Checks of arguments: refuse by name, with what came, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Literal

import torch
from torch import Tensor

Field = Literal["real", "complex", "any", "integer"]
Shape = tuple[int, ...]

_REAL = (torch.float32, torch.float64)
_COMPLEX = (torch.complex64, torch.complex128)
_ACCEPTED = {
    "real": _REAL, "complex": _COMPLEX, "any": _REAL + _COMPLEX, "integer": (torch.int64,)
}  # fmt: skip


def check_tensor(name: str, value: object) -> Tensor:
    """Return `value` if it is a tensor, else raise TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(value).__name__}; "
            "convert it with torch.as_tensor"
        )
    return value


def check_dtype(name: str, value: Tensor, field: Field = "real") -> None:
    """Raise TypeError unless `value` has a dtype of the field: single or double, or int64."""
    if value.dtype in _ACCEPTED[field]:
        return
    wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in _ACCEPTED[field])
    advice = "convert it explicitly, e.g. with .to(torch.float32)"
    if field == "complex":
        advice = "convert it explicitly, e.g. with .to(torch.complex64)"
    if field == "integer":
        advice = "convert it explicitly, e.g. with .to(torch.int64)"
    if value.is_complex() and field == "real":
        advice = "take its .real or .abs() explicitly: an imaginary part is never dropped silently"
    raise TypeError(f"{name} has dtype {value.dtype}, expected {wanted}; {advice}")


def check_finite(name: str, value: Tensor) -> None:
    """Raise ValueError if `value` has NaN or infinite entries: their count, the first one."""
    # A finite sum has finite terms, and is several times faster to find than they are.
    if bool(torch.isfinite(value.detach().sum())):
        return
    bad = ~torch.isfinite(value)
    if not bool(bad.any()):
        return
    first = tuple(int(i) for i in bad.nonzero()[0])
    raise ValueError(
        f"{name} has {int(bad.sum())} non-finite entries of {value.numel()}, the first at index "
        f"{first} ({value[first].item()}); remove them, or hide missing entries behind a mask"
    )


def check_batched(name: str, value: Tensor, shape: Shape | None, ndim: int | None) -> None:
    """Raise ValueError unless `value` is (B, *shape), or has `ndim` axes after the batch axis."""
    came = tuple(value.shape)
    if shape is not None:
        if came[1:] != tuple(shape) or not came:
            expected = "(B, " + ", ".join(map(str, shape)) + ")"
            hint = "; add the batch axis with [None]" if came == tuple(shape) else ""
            raise ValueError(f"{name} has shape {came}, expected {expected}{hint}")
    elif ndim is not None and len(came) != ndim + 1:
        hint = "; add the batch axis with [None]" if len(came) == ndim else ""
        raise ValueError(
            f"{name} has shape {came}, expected a batch axis and then {ndim} axes{hint}"
        )
    elif not came:
        raise ValueError(f"{name} is a single number, expected a batch axis first")
    if 0 in came:
        raise ValueError(f"{name} has shape {came}: it is empty; pass at least one sample")


def check_same(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless `value` is a tensor with the shape, dtype and device of `other`."""
    check_tensor(name, value)
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name} has dtype {value.dtype}, {other_name} {other.dtype}; convert one of them"
        )
    if value.shape != other.shape or value.device != other.device:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} on {value.device}, expected that of "
            f"{other_name}: {tuple(other.shape)} on {other.device}"
        )


def check_shape(name: str, shape: Sequence[int]) -> Shape:
    """Return `shape` as a tuple of positive integers, else raise ValueError."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise ValueError(f"{name} must be a tuple of positive integers, got {shape!r}")
    sizes = tuple(shape)
    if not sizes or any(isinstance(n, bool) or not isinstance(n, Integral) or n < 1 for n in sizes):
        raise ValueError(f"{name} must be positive integers, got {sizes}")
    return tuple(int(n) for n in sizes)


def check_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the image_shape (C, H, W), or raise ValueError."""
    sizes = check_shape("image_shape", shape)
    if len(sizes) != 3:
        raise ValueError(f"image_shape must be (C, H, W), got {sizes}")
    channels, height, width = sizes
    return channels, height, width


def check_number(name: str, value: float) -> float:
    """Return `value` as a float if it is a finite number, else raise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not -float("inf") < value < float("inf"):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def check_positive(name: str, value: float) -> float:
    """Return `value` as a float if it is a positive finite number, else raise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)


def check_integer(name: str, value: object, least: int) -> int:
    """Return `value` as an int if it is an integer of at least `least`, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


class Constant:
    """A fixed tensor of an operator, converted once per dtype and device of its arguments.

    `like(x)` returns it in the precision of x (real stays real, complex stays complex) on the
    device of x. Keep the master in float64 so that both precisions are served in full.
    """

    def __init__(self, value: Tensor) -> None:
        # A tensor born in inference mode could never be saved for a later backward pass.
        with torch.inference_mode(False):
            self.value = value.detach().clone()
        self._cast: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        dtype = x.dtype.to_complex() if self.value.is_complex() else x.dtype.to_real()
        if not (self.value.is_floating_point() or self.value.is_complex()):
            dtype = self.value.dtype
        key = (dtype, x.device)
        if key not in self._cast:
            with torch.inference_mode(False), torch.no_grad():
                self._cast[key] = self.value.to(device=x.device, dtype=dtype)
        return self._cast[key]
