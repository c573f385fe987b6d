"""Does A^T belong to A, is A linear? Tests for every operator, a user's own included."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import Shape, check_same, check_shape
from .linear_operator import LinearOperator
from .promises import check_derivative, check_linear, check_rows, check_types

_LIMIT = {torch.float32: 1e-6, torch.float64: 1e-13}


class DotTest(NamedTuple):
    """The result of `dot_test`; `str()` says what to do about it.

    random: worst |<A x, y> - <x, A^T y>| / (|A x| |y|) for random y; inf where either of A x and
        A^T y has NaN or infinite entries.
    matched: the same for y = A x, which sees a wrong scale that random y average away.
    scale: <x, A^T A x> / |A x|^2, mean over the draws: 1 for a true adjoint.
    limit: what both errors must not exceed.
    """

    random: float
    matched: float
    scale: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.random <= self.limit and self.matched <= self.limit

    def __str__(self) -> str:
        found = (
            f"relative errors {self.random:.1e} (random y) and {self.matched:.1e} (y = A x), "
            f"limit {self.limit:.0e}"
        )
        if self.passed:
            return f"the adjoint fits: {found}"
        if math.isinf(max(self.random, self.matched)):
            return (
                f"the adjoint does not fit: {found}; A x or A^T y has NaN or infinite entries for "
                "finite images, or is not 0 where the other is; look for a division by zero, a "
                "root of a negative number, or an overflow of single precision"
            )
        advice = (
            "look for a flipped kernel, a shift by one pixel, padding that is not folded back, or "
            "a missing complex conjugate; from_function(f, event_shape) derives the adjoint of a "
            "differentiable f"
        )
        if self.random <= 1e-2 and abs(self.scale - 1) > 10 * self.limit:
            advice = f"if only the scale is wrong, divide `_adjoint` by {self.scale:.6g}; " + advice
        return f"the adjoint does not fit: {found}; {advice}"


def dot_test(
    operator: LinearOperator,
    event_shape: Shape | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    batch: int = 2,
    draws: int = 5,
    limit: float | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> DotTest:
    """Test <A x, y> = <x, A^T y> on random images x and two kinds of y: random ones, and A x.

    <a, b> = Re sum(conj(a) b) over the whole batch. Cost: per draw one A and two A^T. An adjoint
    that passes in double precision is right to about 13 digits.

    Args:
        operator: A.
        event_shape: shape of one image, needed only if the operator accepts any size.
        dtype: torch.float32 or torch.float64, the precision that is tested.
        batch, draws: how many images at once, and how often, each >= 1.
        limit: the largest error that passes; default 1e-6 in single, 1e-13 in double precision.
        seed: of the private generator.

    Returns:
        The worst errors; `.passed` compares them with the limit. See `DotTest`.

    Raises:
        ValueError: no image shape is known, A^T y has not the shape of x, or nothing is drawn.
        TypeError: A^T y has not the dtype of x.
    """
    if dtype not in _LIMIT:
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    check_shape("batch and draws", (batch, draws))
    generator = torch.Generator().manual_seed(seed)
    limit = _LIMIT[dtype] if limit is None else limit
    random = matched = scale = 0.0
    with torch.no_grad():
        for _ in range(draws):
            x = random_image(operator, event_shape, batch, dtype, generator).to(device)
            ax = operator.apply(x)
            y = torch.randn(ax.shape, generator=generator, dtype=ax.dtype).to(device)
            random = max(random, _error(operator, x, ax, y))
            matched = max(matched, _error(operator, x, ax, ax))
            scale += dot(x, operator.adjoint(ax)) / max(dot(ax, ax), 1e-300) / draws
    return DotTest(random, matched, scale, limit)


def check_operator(operator: LinearOperator, event_shape: Shape | None = None) -> None:
    """Try every promise of a linear operator on random images; for the author of a new one.

    Linear, also under negative, large and complex multiples; sample by sample; both precisions
    kept; its input left unchanged; differentiable; and the adjoint fits in both precisions
    (`dot_test`). Cost: about 60 products with A. What it cannot see: whether A is the instrument
    that was meant.

    Args:
        operator: A.
        event_shape: shape of one image, needed only if the operator accepts any size.

    Raises:
        TypeError, ValueError: the first promise that is broken, by how much, and what to do.
    """
    generator = torch.Generator().manual_seed(0)
    x, z = (random_image(operator, event_shape, 3, torch.float64, generator) for _ in range(2))
    y = check_types(operator.apply, x)
    promised = operator.output_shape(tuple(x.shape[1:]))
    if y.shape[1:] != promised:
        raise ValueError(f"output_shape promises {promised}, f(x) has {tuple(y.shape[1:])}")
    check_rows(operator.apply, x)
    check_linear(operator.apply, x, z)
    if operator.differentiable:
        check_derivative(operator.apply, x)
    for dtype in _LIMIT:
        result = dot_test(operator, event_shape, dtype=dtype)
        if not result.passed:
            raise ValueError(f"in {dtype}: {result}")


def _error(operator: LinearOperator, x: Tensor, ax: Tensor, y: Tensor) -> float:
    back = operator.adjoint(y)
    check_same("A^T y", back, "x", x)
    difference = abs(dot(ax, y) - dot(x, back))
    size = float(ax.norm() * y.norm())
    if size == 0:
        return 0.0 if difference == 0 else math.inf
    # NaN would be smaller than any limit to max().
    error = difference / size
    return error if math.isfinite(error) else math.inf


def dot(a: Tensor, b: Tensor) -> float:
    """Re <a, b> over all axes."""
    return float((a.conj() * b).sum().real)


def random_image(
    operator: LinearOperator,
    event_shape: Shape | None,
    batch: int,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Tensor:
    """Normal images (B, *event) of the operator's field, on the device of the generator."""
    shape = operator.event_shape or event_shape
    if shape is None:
        raise ValueError(
            "this operator accepts images of any size: pass event_shape=(C, H, W) of one to test"
        )
    dtype = dtype.to_complex() if operator.event_field == "complex" else dtype
    return torch.randn(batch, *shape, generator=generator, dtype=dtype, device=generator.device)
