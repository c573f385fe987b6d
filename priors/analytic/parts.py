"""What makes each kind of covariance, as tensors; and back, refused where these do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .covariance import Covariance, Dense, Diagonal
from .structured import Circulant, FactorAnalysis, Kronecker, LowRank

Parts = dict[str, Tensor]

KINDS: dict[str, Callable[[Parts], Covariance]] = {
    "Diagonal": lambda t: Diagonal(t["variance"]),
    "Dense": lambda t: Dense(t["matrix"]),
    "Circulant": lambda t: Circulant(t["spectrum"]),
    "LowRank": lambda t: LowRank.from_basis(t["basis"], t["variances"], t["variance"]),
    "FactorAnalysis": lambda t: FactorAnalysis(t["factor"], t["diagonal"]),
    "Kronecker": lambda t: Kronecker(
        *(t[f"factor{i}"] for i in range(len(t) - 1)), variance=t["variance"]
    ),
}


def parts_of(C: Covariance) -> Parts:
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
    raise TypeError(f"a {type(C).__name__} cannot be saved; known: {', '.join(KINDS)}")


def covariance_of(kind: str, parts: Parts, size: int) -> Covariance:
    """The covariance of `size` values that the parts make.

    Nothing larger than the parts is made before they are known to be of that size.

    Raises:
        ValueError: parts missing, beside those of the kind, or of other shapes; or values that the
            covariance refuses.
    """
    shapes = {name: tuple(value.shape) for name, value in parts.items()}
    expected = _expected(kind, shapes, size)
    if shapes != expected:
        raise ValueError(
            f"a {kind} covariance of {size} values needs {_listed(expected)}; got {_listed(shapes)}"
        )
    return KINDS[kind](parts)


def _expected(
    kind: str, shapes: dict[str, tuple[int, ...]], size: int
) -> dict[str, tuple[int, ...]]:
    """The shapes that parts must have, where a rank or the axes are free as those of `shapes`."""
    if kind == "Diagonal":
        return {"variance": (size,)}
    if kind == "Dense":
        return {"matrix": (size, size)}
    if kind == "Circulant":
        shape = shapes.get("spectrum", ())
        fits = len(shape) >= 2 and math.prod(shape) == size
        return {"spectrum": shape if fits else (1, size)}
    if kind == "FactorAnalysis":
        return {"factor": (size, _last(shapes.get("factor"))), "diagonal": (size,)}
    if kind == "LowRank":
        rank = min(_last(shapes.get("basis")), size)
        return {"basis": (size, rank), "variances": (rank,), "variance": (1,)}
    axes = [_last(shapes.get(f"factor{i}")) for i in range(max(len(shapes) - 1, 1))]
    if math.prod(axes) != size:
        axes = [size]
    return {f"factor{i}": (n, n) for i, n in enumerate(axes)} | {"variance": ()}


def _last(shape: tuple[int, ...] | None) -> int:
    return shape[-1] if shape else 1


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())[:300] or "none"
