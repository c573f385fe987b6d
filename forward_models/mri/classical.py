"""The classical reconstruction of parallel imaging."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..checks import check_batched, check_dtype, check_finite, check_number, check_tensor
from ..linear import LinearOperator, conjugate_gradients


def cg_sense(
    operator: LinearOperator,
    y: Tensor,
    regularization: float,
    *,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> Tensor:
    """CG-SENSE with Tikhonov's penalty: argmin_x |A x - y|^2 + regularization |x|^2, (B, *event).

    It is the posterior mean under the prior N(0, tau^2 I) for regularization = sigma^2 / tau^2,
    for complex as for real images. The normal equations (A^H A + regularization) x = A^H y are
    solved by conjugate gradients on images, through `operator.normal`: one convolution an iteration
    for `Nufft`. Entries of y outside `operator.measured` are ignored.

    Args:
        operator: A, e.g. `MultiCoilMRI(mask, maps)` or `Nufft(...) @ CoilSensitivities(maps)`.
        y: (B, *measurement).
        regularization: >= 0, in units of the squared singular values of A, which are at most 1 for
            `MultiCoilMRI` with normalised maps. With 0 the number of iterations regularises.
        tolerance, max_iterations: see `conjugate_gradients`. Stopping at a bound given here is a
            choice and silent; at the default one it gives a RuntimeWarning.

    Raises:
        TypeError: y has another dtype than measurements of A, or regularization is no number.
        ValueError: y has another shape, or measured entries that are NaN or infinite; a negative
            regularization.

    Paper: Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories,
    https://doi.org/10.1002/mrm.1241
    """
    check_tensor("y", y)
    check_dtype("y", y, operator.measurement_field)
    check_batched("y", y, operator.measurement_shape, operator.measurement_ndim)
    operator.input_shape(tuple(y.shape[1:]))
    if check_number("regularization", regularization) < 0:
        raise ValueError(f"regularization must not be negative, got {regularization}")
    measured = operator.measured
    if measured is not None:
        y = torch.where(measured.to(y.device), y, 0)
    check_finite("y", y)
    normal = operator.normal
    x, info = conjugate_gradients(
        lambda v: normal(v) + regularization * v,
        operator.adjoint(y),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    if max_iterations is None and not bool(info.converged.all()):
        warnings.warn(
            f"conjugate gradients left a relative residual of {float(info.residual.max()):.1e} "
            f"after {int(info.iterations.max())} iterations; raise regularization, use "
            "complex128, or set max_iterations: few iterations regularise too",
            RuntimeWarning,
            stacklevel=2,
        )
    return x
