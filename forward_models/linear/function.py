"""A linear operator from any linear function: its adjoint by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import torch
from torch import Tensor

from ..checks import Shape, check_shape
from .linear_operator import LinearOperator
from .promises import check_derivative, check_linear, check_rows, check_types

_PROBES = 3


@final
class FunctionOperator(LinearOperator):
    """y = f(x) for a function that is linear; made by `from_function`, which checks that it is."""

    def __init__(
        self,
        f: Callable[[Tensor], Tensor],
        event_shape: Shape,
        measurement_shape: Shape,
        event_field: Literal["real", "complex"],
        measurement_field: Literal["real", "complex"],
    ) -> None:
        self.function = f
        self.event_shape, self.measurement_shape = event_shape, measurement_shape
        self.event_ndim, self.measurement_ndim = len(event_shape), len(measurement_shape)
        self.event_field, self.measurement_field = event_field, measurement_field

    def _apply(self, x: Tensor) -> Tensor:
        return self.function(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        """The gradient of Re <y, f(x)> in x, which is A^T y wherever it is taken; here at x = 0."""
        assert self.event_shape is not None
        dtype = y.dtype.to_complex() if self.event_field == "complex" else y.dtype.to_real()
        keep_graph = torch.is_grad_enabled() and y.requires_grad
        # Only a tensor made outside inference mode can be differentiated, or saved for it.
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(
                len(y), *self.event_shape, dtype=dtype, device=y.device, requires_grad=True
            )
            ax = self.function(x)
            weight = y.clone() if y.is_inference() else y
            (result,) = torch.autograd.grad(ax, x, weight, create_graph=keep_graph)
        return result


def from_function(
    f: Callable[[Tensor], Tensor],
    event_shape: Shape,
    *,
    field: Literal["real", "complex"] = "real",
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FunctionOperator:
    """The linear operator x -> f(x), its adjoint by automatic differentiation.

    Exact to rounding if f and its derivative are. The adjoint of a complex f is the conjugate
    transpose, that of a real-to-complex one its real part. Cost of the adjoint: one f and one
    backward pass through it; it is differentiable if f is twice differentiable for autograd, as
    everything built into torch is. f must serve any batch size, single and double precision, and
    give back the precision it got.

    Every promise is tried on random images in double precision before the operator is made: zero
    goes to zero; sums and multiples (negative, large and, for complex images, imaginary ones) are
    kept; no row of a batch sees another; the input is left unchanged; autograd reaches the input.

    Args:
        f: images (B, *event) to measurements (B, *measurement).
        event_shape: shape of one image; that of a measurement is found by calling f.
        field: whether images are "real" or "complex".
        device: where f computes.
        seed: of the private generator of the random images.

    Raises:
        TypeError: f returns no tensor, or its dtype does not follow that of its input.
        ValueError: f is not linear, mixes the rows of a batch, changes its input, or is not
            differentiable; the message says which, and by how much.

    Example:
        A = from_function(lambda x: x.cumsum(-1), event_shape=(1, 64, 64))
    """
    shape = check_shape("event_shape", event_shape)
    if field not in ("real", "complex"):
        raise ValueError(f"unknown field {field!r}; known: 'real', 'complex'")
    generator = torch.Generator().manual_seed(seed)
    double = torch.complex128 if field == "complex" else torch.float64

    def image(batch: int) -> Tensor:
        x = torch.randn(batch, *shape, generator=generator, dtype=double)
        return x.to(device)

    y = check_types(f, image(2))
    check_rows(f, image(3))
    check_derivative(f, image(2))
    for _ in range(_PROBES):
        check_linear(f, image(2), image(2))
    measurement_field: Literal["real", "complex"] = "complex" if y.is_complex() else "real"
    return FunctionOperator(f, shape, tuple(y.shape[1:]), field, measurement_field)
