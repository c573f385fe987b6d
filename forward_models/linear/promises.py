"""What a linear map on batches promises, tried on given images: it keeps each promise or raises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import check_same

Map = Callable[[Tensor], Tensor]

# Of float64 arithmetic; a function that computes in single precision inside is caught.
_TOLERANCE = 1e-9


def check_types(f: Map, x: Tensor) -> Tensor:
    """f gives a batch of finite tensors in the precision of x, single or double; returns f(x).

    Raises TypeError for what is returned, ValueError for its shape or values.
    """
    single = torch.complex64 if x.is_complex() else torch.float32
    results = []
    for given in (x, x.to(single)):
        with torch.no_grad():
            y = f(given.clone())
        if not isinstance(y, Tensor):
            raise TypeError(f"f must return a torch.Tensor, got {type(y).__name__}")
        if y.dtype not in (given.dtype.to_real(), given.dtype.to_complex()):
            raise TypeError(
                f"f returned {y.dtype} for images in {given.dtype}; it must keep the precision it "
                "got: make its constants follow it, e.g. with .to(x.dtype)"
            )
        if y.ndim < 2 or len(y) != len(given) or y.numel() == 0:
            raise ValueError(
                f"f returned shape {tuple(y.shape)} for images {tuple(given.shape)}, expected "
                f"({len(given)}, ...): the batch axis first, then at least one axis"
            )
        if not bool(torch.isfinite(y).all()):
            raise ValueError(f"f gives NaN or infinite values for finite images in {given.dtype}")
        results.append(y)
    if results[0].is_complex() != results[1].is_complex():
        raise TypeError("f is complex in one precision and real in the other")
    return results[0]


def check_rows(f: Map, x: Tensor) -> None:
    """f leaves its input as it is, and no row of a batch sees another; raises ValueError."""
    before = x.clone()
    with torch.no_grad():
        together = f(x)
        if not torch.equal(x, before):
            raise ValueError("f changes its input in place; let it work on a copy, x.clone()")
        for i in range(len(x)):
            alone = f(x[i : i + 1].clone())
            check_same(f"f of row {i} alone", alone, "its row of the batch", together[i : i + 1])
            error = _relative(alone, together[i : i + 1], together)
            if not error <= _TOLERANCE:
                raise ValueError(
                    f"f mixes the rows of a batch: row {i} alone and in a batch differ by "
                    f"{error:.1e} (relative); let sums run over the axes of one image only"
                )


def check_derivative(f: Map, x: Tensor) -> None:
    """Autograd reaches the input of f; raises ValueError."""
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        y = f(leaf)
        reached = y.requires_grad
        if reached:
            (gradient,) = torch.autograd.grad(y, leaf, torch.ones_like(y), allow_unused=True)
            reached = gradient is not None
    if not reached:
        raise ValueError(
            "f is not differentiable: no gradient reaches its input; use torch operations without "
            ".detach(), .numpy() or no_grad, or write a LinearOperator with its own _adjoint"
        )


def check_linear(f: Map, x: Tensor, z: Tensor) -> None:
    """f keeps sums and multiples, complex ones for complex images; raises ValueError."""
    with torch.no_grad():
        fx, fz = f(x.clone()), f(z.clone())
        if not bool(torch.isfinite(fx).all()):
            raise ValueError("f gives NaN or infinite values for finite images")
        if x.is_complex() and not fx.is_complex():
            raise ValueError(
                "f is not linear: it gives real values for complex images, so that f(i x) is not "
                "i f(x); take real images, or leave its result complex"
            )
        errors = {
            "f(0) = 0": _relative(f(torch.zeros_like(x)), torch.zeros_like(fx), fx),
            "f(x + z) = f(x) + f(z)": _relative(f(x + z), fx + fz, fx),
        }
        # A large and a small factor meet thresholds and clipping that unit images do not.
        for factor in (-1.0, 3.7e4, -1e-4, *([0.6 - 0.8j] if x.is_complex() else [])):
            scaled = factor * fx
            errors[f"f({factor:g} x) = {factor:g} f(x)"] = _relative(f(factor * x), scaled, scaled)
    for rule, error in errors.items():
        if not error <= _TOLERANCE:
            raise ValueError(
                f"f is not linear: {rule} is off by {error:.1e} (relative); remove offsets, "
                "clipping, randomness and single precision inside, or subclass Operator for a map "
                "that is not linear"
            )


def _relative(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """The largest |a - b|, as a share of the largest |scale|."""
    size, error = float(scale.abs().max()), float((a - b).abs().max())
    return error / size if size > 0 else error
