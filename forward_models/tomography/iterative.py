"""Classical iterative reconstruction for any linear operator: SIRT and CGLS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import Shape, check_batched, check_dtype, check_finite, check_same, check_tensor
from ..linear import LinearOperator, SolveInfo
from ..linear.linear_operator import divide
from ..linear.solvers import inner, per_sample

# (iteration, counted from 1; the iterate, (B, *event))
Callback = Callable[[int, Tensor], None]


def sirt(
    operator: LinearOperator,
    y: Tensor,
    iterations: int = 100,
    *,
    relaxation: float = 1.0,
    nonnegative: bool = False,
    discrepancy: float | Tensor = 0.0,
    start: Tensor | None = None,
    callback: Callback | None = None,
) -> tuple[Tensor, SolveInfo]:
    """The simultaneous iterative reconstruction technique.

        x <- x + relaxation * C A^T R (y - A x),    R = 1 / (A 1),  C = 1 / (A^T 1),

    then, if asked, max(x, 0). For an A without negative entries it converges to a minimum of
    |y - A x|_R, over x >= 0 if asked, and that norm of the residual, |r|_R^2 = sum R r^2, never
    grows. One that does grow betrays negative entries, and is an error rather than a diverged x.
    Stopping early regularises: detail comes with the iterations, and noise after it. Entries that
    nothing measures stay as they start. Cost: one A and one A^T per iteration, and one of each
    before.

    Args:
        operator: A, real and without negative entries: line integrals, averages, masks.
        y: measurements, (B, *measurement).
        relaxation: between 0 and 2.
        discrepancy: a sample stops as soon as |y - A x| <= discrepancy, () or (B,), in the unit of
            y: about sigma * sqrt(entries of one y) for noise of standard deviation sigma.
        start: first iterate, (B, *event); default zero.
        callback: called after each iteration with its number and x.

    Returns:
        x, (B, *event), and `SolveInfo`: converged means that the discrepancy was reached.

    Raises:
        TypeError: no LinearOperator, or a dtype that does not fit.
        ValueError: shapes that do not fit, NaN, a relaxation outside (0, 2), an operator whose
            sums A 1 or A^T 1 have a negative entry, or, in any iteration and sample, a residual
            with |r|_R not finite or above twice the larger of |y|_R and its start.

    Paper: Gregor and Benson, Computational analysis and improvement of SIRT,
    https://doi.org/10.1109/TMI.2008.923696
    """
    if not 0 < relaxation < 2:
        raise ValueError(f"relaxation must lie between 0 and 2, got {relaxation}: SIRT diverges")
    _check_linear(operator)
    if operator.event_field == "complex" or operator.measurement_field == "complex":
        raise ValueError("sirt needs a real operator without negative entries; use cgls")
    event, bound = _check(operator, y, iterations, discrepancy)
    rows = operator.apply(y.new_ones(1, *event))
    columns = operator.adjoint(torch.ones_like(rows))
    for name, sums in (("A 1", rows), ("A^T 1", columns)):
        if bool((sums < 0).any()):
            raise ValueError(
                f"{name} has the negative entry {float(sums.min()):.3g}: sirt needs an operator "
                "without negative entries; use cgls"
            )
    one = y.new_ones(())
    R, C = divide(one.expand_as(rows), rows), divide(one.expand_as(columns), columns)
    x, r = _begin(operator, y, event, start)
    # Twice the start, so that rounding around a solution is no divergence.
    most = 4 * torch.maximum(inner(r, R * r), inner(y, R * y))
    active = inner(r, r) > bound.square()
    count = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    for iteration in range(1, iterations + 1):
        if not bool(active.any()):
            break
        moved = x + relaxation * C * operator.adjoint(R * r)
        if nonnegative:
            moved = moved.clamp(min=0)
        x = torch.where(per_sample(active, x), moved, x)
        r = y - operator.apply(x)
        _check_growth(inner(r, R * r), most, iteration)
        count = count + active
        active = active & (inner(r, r) > bound.square())
        if callback is not None:
            callback(iteration, x)
    reached = inner(r, r) <= bound.square()
    return x, SolveInfo(count, _relative(r, y), reached)


def cgls(
    operator: LinearOperator,
    y: Tensor,
    iterations: int = 100,
    *,
    tolerance: float | None = None,
    discrepancy: float | Tensor = 0.0,
    start: Tensor | None = None,
    callback: Callback | None = None,
) -> tuple[Tensor, SolveInfo]:
    """Conjugate gradients for least squares: min |y - A x|, each sample on its own.

    From zero it converges to the solution of minimal norm; iterate k minimises |y - A x| over the
    Krylov space of A^T A and A^T y with k dimensions, so that the norm of the residual never grows.
    Stopping early regularises, as for `sirt`, after far fewer iterations. Exact in exact arithmetic
    after as many iterations as A has distinct singular values. Cost: one A and one A^T per
    iteration, and one A^T before.

    Args:
        operator: A, real or complex.
        y: measurements, (B, *measurement).
        tolerance: a sample stops when |A^T (y - A x)| <= tolerance * |A^T y|; default 1e-6 in
            single precision and 1e-12 in double precision.
        discrepancy, start, callback: as for `sirt`.

    Returns:
        x, (B, *event), and `SolveInfo`: converged means that one of the two bounds was reached.

    Raises:
        TypeError: no LinearOperator, or a dtype that does not fit.
        ValueError: shapes that do not fit, NaN, or a negative bound.

    Paper: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems,
    https://doi.org/10.6028/jres.049.044
    """
    _check_linear(operator)
    event, bound = _check(operator, y, iterations, discrepancy)
    if tolerance is None:
        tolerance = 1e-12 if y.dtype in (torch.float64, torch.complex128) else 1e-6
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    x, r = _begin(operator, y, event, start)
    s = operator.adjoint(r)
    first = s if start is None else operator.adjoint(y)
    enough = tolerance**2 * inner(first, first)
    p, ss = s, inner(s, s)

    def unfinished() -> Tensor:
        return (inner(r, r) > bound.square()) & (ss > enough)

    active = unfinished()
    count = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    one = torch.ones_like(ss)
    for iteration in range(1, iterations + 1):
        if not bool(active.any()):
            break
        q = operator.apply(p)
        alpha = ss / torch.where(active, inner(q, q), one)
        keep_x, keep_y = per_sample(active, x), per_sample(active, y)
        # torch.where, not a product with zero: a finished sample is left untouched.
        x = torch.where(keep_x, x + per_sample(alpha, x) * p, x)
        r = torch.where(keep_y, r - per_sample(alpha, y) * q, r)
        s = operator.adjoint(r)
        before, ss = ss, torch.where(active, inner(s, s), ss)
        beta = ss / torch.where(active, before, one)
        p = torch.where(keep_x, s + per_sample(beta, x) * p, p)
        count = count + active
        active = active & unfinished()
        if callback is not None:
            callback(iteration, x)
    return x, SolveInfo(count, _relative(r, y), ~unfinished())


def _check_linear(operator: LinearOperator) -> None:
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"operator must be a LinearOperator, got {type(operator).__name__}; "
            "a matrix is wrapped by MatrixOperator(matrix)"
        )


def _check_growth(squares: Tensor, most: Tensor, iteration: int) -> None:
    """Raise ValueError if |r|_R^2, (B,), is not finite or above its bound in some sample."""
    diverged = ~(squares <= most)
    if bool(diverged.any()):
        sample = int(diverged.int().argmax())
        raise ValueError(
            f"sirt diverges: in iteration {iteration} the weighted residual of sample {sample} is "
            f"{float(squares[sample].sqrt()):.3g}, more than {float(most[sample].sqrt()):.3g}, "
            "twice its start; without negative entries it never grows: use cgls"
        )


def _check(
    operator: LinearOperator, y: Tensor, iterations: int, discrepancy: float | Tensor
) -> tuple[Shape, Tensor]:
    """The image shape behind a checked y, and the bound on the norm of the residual."""
    check_tensor("y", y)
    check_dtype("y", y, operator.measurement_field)
    check_batched("y", y, operator.measurement_shape, operator.measurement_ndim)
    check_finite("y", y)
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations must be a whole number from 0 on, got {iterations}")
    bound = torch.as_tensor(discrepancy).to(y.device, y.dtype.to_real())
    if bound.shape not in ((), (len(y),)) or not bool((bound >= 0).all()):
        raise ValueError(
            f"discrepancy must be one number or ({len(y)},), not negative, got {discrepancy}"
        )
    return operator.input_shape(tuple(y.shape[1:])), bound


def _begin(
    operator: LinearOperator, y: Tensor, event: Shape, start: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The first iterate and its residual."""
    dtype = y.dtype.to_complex() if operator.event_field == "complex" else y.dtype
    x = torch.zeros(len(y), *event, dtype=dtype, device=y.device)
    if start is None:
        return x, y
    check_same("start", start, "x", x)
    return start, y - operator.apply(start)


def _relative(r: Tensor, y: Tensor) -> Tensor:
    return divide(inner(r, r), inner(y, y)).sqrt()
