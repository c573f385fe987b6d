"""Linear operators A: images to measurements, with an exact adjoint and solves of A C A^T + S."""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from ..checks import Shape, check_batched, check_dtype, check_finite, check_shape, check_tensor
from ..operator import Operator
from .bidiagonal import largest_singular_value
from .solvers import conjugate_gradients, per_sample
from .svd import SVD, divide

if TYPE_CHECKING:
    from .algebra import Scaled, Sum
    from .composition import Composition
    from .normal import Normal

Covariance = Callable[[Tensor], Tensor] | float | Tensor


class LinearOperator(Operator):
    """A linear map A from images (B, *event) to measurements (B, *measurement).

    An author writes `_apply` and `_adjoint`; <A x, y> = <x, A^T y> holds to rounding, with
    <a, b> = Re sum(conj(a) b) for complex tensors, so that A^T is the conjugate transpose there.
    Both are differentiable. Single and double precision are accepted and kept.

    Attributes: see `Operator`.
        entrywise: whether entry i of A x is a multiple of entry i of x and of no other, as for a
            mask. A @ B then measures the entries that both of them measure.
    """

    entrywise: bool = False
    _transposed: LinearOperator | None = None
    _normal_operator: Normal | None = None

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """A x for a checked x."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """A^T y for a checked y."""

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y: (B, *measurement) to (B, *event). Raises as `apply` does."""
        check_tensor("y", y)
        check_dtype("y", y, self.measurement_field)
        check_batched("y", y, self.measurement_shape, self.measurement_ndim)
        self.input_shape(tuple(y.shape[1:]))
        return self._adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        """A^T A x for a checked x; override it where one step is cheaper than the two."""
        return self._adjoint(self._apply(x))

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """A v: the derivative of a linear map is itself."""
        return self.apply(v)

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """A^T u."""
        return self.adjoint(u)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        """Shape of the image behind a measurement of this shape, found without computing it."""
        return self.event_shape or measurement_shape

    @property
    def svd(self) -> SVD | None:
        """The singular value decomposition where it is known in closed form, else None.

        Many are known once `event_shape` is; see `sized`.
        """
        return None

    def sized(self, event_shape: Shape) -> LinearOperator:
        """The same operator, of images of this shape alone, as if it had been built with it.

        Itself where it was, and all that it is made of; this one stays as it is.

        Raises ValueError if it is of another shape, or cannot be of this one.
        """
        shape, name = check_shape("event_shape", event_shape), type(self).__name__
        if self.event_shape not in (None, shape):
            raise ValueError(f"{name} takes images {self.event_shape}, not {shape}")
        if self.event_ndim not in (None, len(shape)):
            raise ValueError(
                f"{name} takes images of {self.event_ndim} axes, event_shape is {shape}"
            )
        return self._sized(shape)

    def _sized(self, shape: Shape) -> LinearOperator:
        """`sized` for a shape that may fit; override it where an operator is made of others."""
        if self.event_shape is not None:
            return self
        sized = copy.copy(self)
        # What was found for images of any shape.
        sized._transposed = sized._normal_operator = None
        vars(sized).pop("svd", None)
        sized.measurement_shape = self.output_shape(shape)
        sized.measurement_ndim = len(sized.measurement_shape)
        sized.event_shape, sized.event_ndim = shape, len(shape)
        return sized

    @property
    def T(self) -> LinearOperator:
        """The adjoint as an operator; `A.T.T is A`."""
        if self._transposed is None:
            from .algebra import AdjointOperator

            self._transposed = AdjointOperator(self)
        return self._transposed

    @property
    def normal(self) -> LinearOperator:
        """A^T A as an operator on images, at the cost of its shortest form; see `Normal`."""
        if self._normal_operator is None:
            from .normal import Normal

            self._normal_operator = Normal(self)
        return self._normal_operator

    @overload
    def __matmul__(self, other: LinearOperator) -> Composition: ...
    @overload
    def __matmul__(self, other: Operator) -> Operator: ...
    def __matmul__(self, other: Operator) -> Operator:
        """A @ B, the operator x -> A(B(x)); linear if B is."""
        from .composition import Composition

        if isinstance(other, LinearOperator):
            return Composition(self, other)
        return super().__matmul__(other)

    def __add__(self, other: LinearOperator) -> Sum:
        """A + B, the operator x -> A(x) + B(x)."""
        from .algebra import Sum

        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: float) -> Scaled:
        """c * A for a real number c."""
        from .algebra import Scaled

        return Scaled(self, float(factor)) if isinstance(factor, Real) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Scaled:
        """A / c for a real number c."""
        return self * (1 / divisor) if isinstance(divisor, Real) else NotImplemented

    def __neg__(self) -> Scaled:
        return self * -1.0

    def __sub__(self, other: LinearOperator) -> Sum:
        return self + (-other) if isinstance(other, LinearOperator) else NotImplemented

    def norm(
        self,
        event_shape: Shape | None = None,
        *,
        iterations: int = 500,
        tolerance: float = 1e-7,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> float:
        """The largest singular value of A.

        Exact where `svd` is known; otherwise by Golub-Kahan bidiagonalisation, a lower bound that
        stops when one iteration changes it by less than `tolerance` (relative). Cost: two products
        with A per iteration, some tens of them for most operators.

        Args:
            event_shape: image shape, needed only if the operator accepts any size.
            iterations: bound on the iterations; reaching it gives a RuntimeWarning.
            seed: of the private generator that draws the first vector.

        Raises:
            ValueError: neither the operator nor the call fixes an image shape.
        """
        if self.svd is not None:
            return float(self.svd.singular_values.abs().max())
        shape = self.event_shape or event_shape
        if shape is None:
            raise ValueError(
                "this operator accepts images of any size: pass norm(event_shape=(C, H, W))"
            )
        check_shape("event_shape", shape)
        dtype = dtype.to_complex() if self.event_field == "complex" else dtype
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, *shape, generator=generator, dtype=dtype).to(device)
        with torch.no_grad():
            value, converged = largest_singular_value(
                self.apply, self._adjoint, x, iterations, tolerance
            )
        if not converged:
            warnings.warn(
                f"the norm still grew after {iterations} iterations: {value:.6g} is a lower bound; "
                "raise iterations or tolerance",
                RuntimeWarning,
                stacklevel=2,
            )
        return value

    def solve(
        self,
        r: Tensor,
        covariance: Covariance,
        noise_variance: float | Tensor,
        *,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        start: Tensor | None = None,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Solve (A C A^T + S) v = r for v, sample by sample; shape (B, *measurement).

        Closed form (exact to rounding, one pass) if C is a multiple of the identity and A has an
        `svd` with S = s I, or A A^T is diagonal; else conjugate gradients, whose cost is one A,
        one A^T and one C per iteration. With S = 0 the closed forms return the least-squares
        solution of minimal norm, while conjugate gradients need r in the range of A C A^T.
        Singular values that are rounding alone (`SVD`) count as 0, the same in both precisions.

        Args:
            r: right-hand sides, (B, *measurement), finite; NaN or an infinity where nothing is
                `measured` counts as 0.
            covariance: C, a function (B, *event) -> (B, *event) that is symmetric and positive
                semi-definite in each sample, or c >= 0, () or (B,), for C = c I.
            noise_variance: S >= 0, a number, or a tensor that broadcasts to r.
            tolerance, max_iterations, start, preconditioner: see `conjugate_gradients`; closed
                forms need none of them. A bound given here is a choice and is kept silently;
                reaching the default one gives a RuntimeWarning.

        Raises:
            ValueError: shapes that do not fit, a negative or NaN variance, or NaN or infinite
                entries of r.
        """
        check_tensor("r", r)
        check_dtype("r", r, self.measurement_field)
        check_batched("r", r, self.measurement_shape, self.measurement_ndim)
        self.input_shape(tuple(r.shape[1:]))
        r = self._data(r)
        s = self._variance("noise_variance", noise_variance, r)
        if not _broadcasts(s, r):
            raise ValueError(
                f"noise_variance has shape {tuple(s.shape)}, which does not broadcast to r, "
                f"{tuple(r.shape)}"
            )
        apply_covariance: Callable[[Tensor], Tensor]
        if callable(covariance):
            apply_covariance = covariance
        else:
            c = self._variance("covariance", covariance, r)
            if c.numel() not in (1, r.shape[0]):
                raise ValueError(
                    f"covariance has shape {tuple(c.shape)}; a multiple of the identity is one "
                    f"number or ({r.shape[0]},), anything else is a function on images"
                )
            c = per_sample(c, r)
            closed = self._solve_isotropic(r, c, s)
            if closed is not None:
                return closed
            apply_covariance = lambda x: per_sample(c, x) * x  # noqa: E731
        v, info = conjugate_gradients(
            lambda v: self.apply(apply_covariance(self._adjoint(v))) + s * v,
            r,
            tolerance=tolerance,
            max_iterations=max_iterations,
            start=start,
            preconditioner=preconditioner,
        )
        if max_iterations is None and not bool(info.converged.all()):
            worst = int(info.residual.argmax())
            warnings.warn(
                f"conjugate gradients left a relative residual of {float(info.residual[worst]):.1e}"
                f" in sample {worst} after {int(info.iterations[worst])} iterations; use float64, "
                "a larger noise_variance, or set max_iterations",
                RuntimeWarning,
                stacklevel=2,
            )
        return v

    def _data(self, r: Tensor) -> Tensor:
        """r with 0 for non-finite entries that are not measured; raises ValueError for others."""
        measured = self.measured
        if measured is not None and not bool(torch.isfinite(r.detach().sum())):
            r = r.masked_fill(~torch.isfinite(r) & ~measured.to(r.device), 0)
        check_finite("r", r)
        return r

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        """Closed form of (c A A^T + S) v = r, or None; c is (B, 1, ...) or (1, ...)."""
        gram = self._gram_diagonal(r)
        if gram is not None:
            return divide(r, c * gram + s)
        svd = self.svd
        if svd is None or not is_uniform(s, r):
            return None
        values = svd.singular_values.to(device=r.device, dtype=r.dtype.to_real())
        z = svd.to_spectral_y(r)
        flat_c, flat_s = c.reshape(-1, 1), s.reshape(-1, 1)
        v = svd.from_spectral_y(divide(z, flat_c * values**2 + flat_s))
        if _real_numbers(z) == _real_numbers(r):
            return v
        # Twice, because what rounding leaves inside the range of A would be divided by S, too.
        outside = r - svd.from_spectral_y(z)
        outside = outside - svd.from_spectral_y(svd.to_spectral_y(outside))
        return v + divide(outside, s)

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        """The diagonal of A A^T, broadcastable to y, if A A^T is diagonal; else None."""
        return None

    @staticmethod
    def _variance(name: str, value: float | Tensor, like: Tensor) -> Tensor:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise TypeError(f"{name} must be real, got {tensor.dtype}")
        tensor = tensor.to(device=like.device, dtype=like.dtype.to_real())
        if not bool((tensor >= 0).all()) or not math.isfinite(float(tensor.detach().sum())):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
        return tensor


def is_uniform(s: Tensor, r: Tensor) -> bool:
    """Whether s, broadcastable to r, is one number per sample."""
    return s.numel() == 1 or (s.ndim == r.ndim and s[0].numel() == 1)


def _broadcasts(s: Tensor, r: Tensor) -> bool:
    try:
        return bool(torch.broadcast_shapes(s.shape, r.shape) == r.shape)
    except RuntimeError:
        return False


def _real_numbers(a: Tensor) -> int:
    return a.numel() * (2 if a.is_complex() else 1)
