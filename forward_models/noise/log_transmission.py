"""Low-dose CT in the log domain: line integrals with approximately Gaussian errors."""

from __future__ import annotations

from torch import Tensor

from ..affine import linear_part
from ..checks import Shape, check_batched, check_dtype, check_positive, check_tensor
from ..operator import Operator
from .gaussian import Gaussian
from .linear_gaussian import LinearGaussian
from .noise import check_possible
from .parameter import PerEntry
from .poisson import check_counts


def log_transmission(
    operator: Operator,
    counts: Tensor,
    I0: float | Tensor,
    background: float | Tensor = 0.0,
    *,
    least: float | None = None,
) -> tuple[LinearGaussian, Tensor]:
    """Counts behind an object as line integrals p with Gaussian noise: (model, p).

        p = -log((y - b) / I0),    Var[p] ~ y / (y - b)^2    (1 / y without background).

    An approximation to `Transmission` for rays with many counts: p is biased by about 1 / (2 y),
    and skew. In exchange every method for linear operators serves. For an affine operator, such as
    `tomography @ attenuation_operator()` of images in Hounsfield units, what the zero image gives
    is taken off p, so that the data are linear in the image.

    Args:
        operator: the projector, linear or affine, of which z are the line integrals.
        counts: y, one measurement (*measurement) or (1, *measurement).
        I0: expected counts without an object, a positive number, or one for each ray.
        background: b, expected counts of scatter and dark current, likewise, may be zero.
        least: rays with y - b below this positive number are taken to have y - b = least, which
            bounds p. Default: such a ray is refused where y - b <= 0.

    Raises:
        TypeError: arguments of other kinds.
        ValueError: y are no counts; several measurements, whose variances differ; y - b <= 0 for
            some ray and no `least` is given: how many, and which first; an operator that is not
            affine.

    Paper: Sauer and Bouman, A local update strategy for iterative reconstruction from projections,
    https://doi.org/10.1109/78.193196
    """
    if not isinstance(operator, Operator):
        raise TypeError(f"operator must be an Operator, got {type(operator).__name__}")
    if linear_part(operator) is None:
        raise ValueError(
            f"{type(operator).__name__} is not affine; the log domain keeps it linear only for "
            "linear projectors: use Observation(operator, Transmission(I0))"
        )
    check_tensor("counts", counts)
    check_dtype("counts", counts)
    y = _one_measurement(counts, operator.measurement_shape, operator.measurement_ndim)
    check_counts(y, y.new_ones(()))
    flux = PerEntry("I0", I0).like(y)
    offset = PerEntry("background", background, zero=True).like(y)
    primary = y - offset
    if least is None:
        expected = (
            "more than the background everywhere, because p is a logarithm; give `least`, or use "
            "Transmission, which needs no logarithm"
        )
        check_possible("counts", y, primary > 0, expected)
    else:
        primary = primary.clamp(min=check_positive("least", least))
    p = (flux / primary).log()
    sigma = (primary + offset).sqrt() / primary
    result = Gaussian(sigma[0]).linear_gaussian(operator, p)
    assert result is not None
    return result


def _one_measurement(counts: Tensor, shape: Shape | None, ndim: int | None) -> Tensor:
    """(1, *measurement)."""
    ndim = len(shape) if shape is not None else ndim
    y = counts[None] if ndim is not None and counts.ndim == ndim else counts
    check_batched("counts", y, shape, ndim)
    if y.shape[0] != 1:
        raise ValueError(
            f"counts holds {y.shape[0]} measurements, expected one: each has variances of its own"
        )
    return y
