"""Conditioning on y = A x0 + n, n ~ N(0, S diagonal), with A as a matrix: the Kalman update.

The forward model is read through three names only: `operator`, a linear map with `adjoint`;
`noise_variance`, S; and, where the operator has it, `measured`, which entries of y are data. A
complex entry counts as two real ones, each with variance S.

Paper: Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960,
https://doi.org/10.1115/1.3662552
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

LIMIT = 2**28
"""Entries of the largest matrix that is built (2 GiB in float64)."""
SINGULAR = (
    "A C A^T + S is singular: some of the measured values are exact and follow from others; give "
    "them a noise variance > 0, or leave them out"
)
_CHUNK = 2**22


class LinearMeasurement(NamedTuple):
    """y = A x + n over the M real values that were measured."""

    A: Tensor
    """(M, D)"""
    y: Tensor
    """(M,)"""
    variance: Tensor
    """S, (M,)"""


def read_model(model: Any, y: Tensor, mean: Tensor) -> LinearMeasurement:
    """A as a matrix, y and S, without unmeasured rows, for events like `mean`; all float64.

    Costs D products with A. Raises as `Gaussian.condition` says.
    """
    operator = _operator(model)
    event_shape, size = tuple(mean.shape), mean.numel()
    probe = _apply(operator, torch.zeros(1, *event_shape).to(mean))
    if bool((probe != 0).any()):
        raise TypeError(
            "conditioning exactly needs a linear operator; this one does not map 0 to 0"
        )
    shape = tuple(probe.shape[1:])
    y = _measurement(y, shape, probe.is_complex()).to(mean.device)
    rows = math.prod(shape) * (2 if probe.is_complex() else 1)
    largest = max(rows * size, size * size)
    if largest > LIMIT:
        raise ValueError(
            f"the exact posterior needs a matrix of {largest} entries, more than {LIMIT}; sample "
            "it instead: inverse.sample(inverse.condition(prior, model, y), method='mmps')"
        )
    kept = _expand(_measured(operator, mean.device), shape)
    if probe.is_complex():
        kept = kept.unsqueeze(-1).expand(*shape, 2)
    kept = kept.reshape(-1)
    variance = _expand(_variance(model, mean), shape)
    if probe.is_complex():
        variance = variance.unsqueeze(-1).expand(*shape, 2)
    data = _real(y.to(probe.dtype))[kept]
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise ValueError(f"y must be finite where it is measured; {bad} entries are not")
    A = _matrix(operator, mean, kept)
    _check_linear(operator, A, mean, kept)
    return LinearMeasurement(A, data, variance.reshape(-1)[kept])


def mask_of(model: Any, mean: Tensor) -> Tensor | None:
    """Which values of x0 the model measures, (*event) bool, if its operator only masks.

    A linear map that equals its mask on one random vector equals it everywhere, with
    probability one.
    """
    operator = _operator(model)
    probe = _probe(mean)
    out = _apply(operator, probe)
    if out.shape != probe.shape or out.is_complex():
        return None
    measured = _expand(_measured(operator, mean.device), tuple(mean.shape))
    return measured if torch.equal(out, torch.where(measured, probe, 0.0)) else None


def read_mask(model: Any, y: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """y and S, (*event) float64, of a model whose operator only masks; y is 0 off the mask."""
    shape = tuple(measured.shape)
    y = _measurement(y, shape).to(measured.device)
    data = torch.where(measured, y.to(torch.float64), 0.0)
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise ValueError(f"y must be finite where it is measured; {bad} entries are not")
    return data, _expand(_variance(model, data), shape)


def kalman(mean: Tensor, C: Tensor, linear: LinearMeasurement) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of x0 given y, and log N(y; A m, A C A^T + S), a scalar.

    The covariance in Joseph's form, (I - K A) C (I - K A)^T + K S K^T, a sum of two squares:
    rounding leaves it positive semidefinite.
    """
    A, y, S = linear
    AC, factor = _innovation(C, linear)
    surprise = y - A @ mean
    gain = torch.cholesky_solve(AC, factor).mT
    left = torch.eye(C.shape[0], dtype=C.dtype, device=C.device) - gain @ A
    posterior = left @ C @ left.mT + gain * S @ gain.mT
    white = torch.linalg.solve_triangular(factor, surprise.unsqueeze(-1), upper=False)
    constant = factor.diagonal().log().sum() + y.numel() * math.log(2 * math.pi) / 2
    return (
        mean + gain @ surprise,
        (posterior + posterior.mT) / 2,
        -white.square().sum() / 2 - constant,
    )


def _innovation(C: Tensor, linear: LinearMeasurement) -> tuple[Tensor, Tensor]:
    """A C (M, D) and the Cholesky factor of A C A^T + S (M, M)."""
    AC = linear.A @ C
    total = AC @ linear.A.mT + torch.diag(linear.variance)
    factor, failed = torch.linalg.cholesky_ex(total)
    # What each value adds to those before it, against rounding.
    new, all_of_it = factor.diagonal() ** 2, total.diagonal()
    rounding = 4 * max(1, all_of_it.numel()) * torch.finfo(total.dtype).eps
    if bool(failed) or bool((new <= rounding * all_of_it).any()):
        raise ValueError(SINGULAR)
    return AC, factor


def _operator(model: Any) -> Any:
    operator = getattr(model, "operator", None)
    linear = callable(operator) and callable(getattr(operator, "adjoint", None))
    if not linear or getattr(model, "noise_variance", None) is None:
        raise TypeError(
            "conditioning exactly needs a linear-Gaussian forward model, one with an `operator` "
            "(a linear map with `adjoint`) and a `noise_variance`; got "
            f"{type(model).__name__}. Sample the others: inverse.condition(prior, model, y)"
        )
    return operator


def _apply(operator: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return operator(x)


def _measured(operator: Any, device: torch.device) -> Tensor:
    measured = getattr(operator, "measured", None)
    return torch.as_tensor(True if measured is None else measured, device=device).bool()


def _variance(model: Any, like: Tensor) -> Tensor:
    variance = torch.as_tensor(model.noise_variance, dtype=like.dtype, device=like.device)
    if not bool(torch.isfinite(variance).all()) or bool((variance < 0).any()):
        raise ValueError(
            f"the noise variance must be finite and >= 0, its least value is {variance.min():.3g}"
        )
    return variance


def _measurement(y: Tensor, shape: tuple[int, ...], allow_complex: bool = False) -> Tensor:
    """One measurement without its batch axis."""
    if not isinstance(y, Tensor):
        raise TypeError(f"y must be a torch.Tensor, got {type(y).__name__}")
    if not (y.is_floating_point() or y.is_complex()):
        raise TypeError(f"y must be floating point, got {y.dtype}; convert it first")
    if y.is_complex() and not allow_complex:
        raise TypeError(f"y must be real, as the forward model's output is, got {y.dtype}")
    if tuple(y.shape) not in (shape, (1, *shape)):
        raise ValueError(
            f"y must be one measurement of shape {shape} or {(1, *shape)}, got {tuple(y.shape)}; "
            "condition on several by calling condition once for each"
        )
    return y.detach().reshape(shape)


def _matrix(operator: Any, mean: Tensor, kept: Tensor) -> Tensor:
    """The measured rows of A, (M, D), from its action on the identity's columns."""
    size = mean.numel()
    chunk = max(1, _CHUNK // max(size, kept.numel()))
    columns = []
    for start in range(0, size, chunk):
        stop = min(start + chunk, size)
        eye = torch.zeros(stop - start, size, dtype=mean.dtype, device=mean.device)
        eye[torch.arange(stop - start), torch.arange(start, stop)] = 1
        out = _apply(operator, eye.reshape(-1, *mean.shape))
        columns.append(torch.stack([_real(row)[kept] for row in out]))
    return torch.cat(columns).mT.contiguous()


def _check_linear(operator: Any, A: Tensor, mean: Tensor, kept: Tensor) -> None:
    probe = _probe(mean)
    expected, found = A @ probe.flatten(), _real(_apply(operator, probe)[0])[kept]
    error, size = float((expected - found).norm()), float(found.norm())
    if error > 1e-4 * size:
        raise TypeError(
            "conditioning exactly needs a linear operator; on a random image this one differs "
            f"from its own matrix by {error / size:.2g} of the output"
        )


def _probe(mean: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((1, *mean.shape), generator=generator, dtype=mean.dtype).to(mean.device)


def _real(values: Tensor) -> Tensor:
    """A measurement as a flat real vector in float64, two values for a complex one."""
    real = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    return real.reshape(-1).to(torch.float64)


def _expand(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return values.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{tuple(values.shape)} does not fit the measurement's shape {shape}"
        ) from None
