"""Bring your own simulator: any function as an operator, differentiable or a black box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from torch import Tensor

from ..checks import Field, Shape, check_shape, check_tensor
from ..noise import Noise
from ..observation import Observation
from ..operator import Operator

Interface = Literal["torch", "numpy"]


@final
class Simulator(Operator):
    """y = f(x) for a function f of the user, checked once with trial images.

    f maps images (B, *event) to (B, *measurement), real or complex, each image alone, the same
    each time, in the precision of the image; or one image (*event) to (*measurement) with
    `batched=False`, where the operator loops over samples. Randomness belongs to a noise model.

    With `differentiable=True` autograd sees through f. With False f runs without a graph, and
    methods that need a gradient refuse it; samplers that only evaluate densities accept it. With
    `interface="numpy"` f takes and returns NumPy arrays: the image goes to the CPU in its own
    precision, what f returns is converted to that precision and back to the image's device.

    Cost: one call of f, or one for each sample with `batched=False`. When built, f is tried on all
    trial images twice, on each alone, and once more with its gradient.

    Args:
        f: the function.
        event_shape: shape of one image.
        measurement_shape: shape of one measurement; default what f returns.
        differentiable: whether autograd may differentiate f. False where f rounds, counts or
            looks up, whose gradient is zero though f is not constant.
        batched: whether f takes a batch.
        interface: "torch" or "numpy".
        field: whether images are "real" or "complex".
        trial: images (B, *event) on which f is checked, B >= 2; default two with entries uniform
            in [0, 1], float32. Give your own where f takes other ranges, or float64 alone.

    Raises:
        TypeError: f is not callable, or returns another type or precision.
        ValueError: an unknown interface or field; an output of another shape, NaN or infinite,
            that changes from call to call or with the other images of the batch; f changes its
            input; a differentiable f whose output has no gradient, or one that is exactly zero at
            all trial images; NumPy with differentiable=True.
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        event_shape: Shape,
        measurement_shape: Shape | None = None,
        differentiable: bool = True,
        *,
        batched: bool = True,
        interface: Interface = "torch",
        field: Field = "real",
        trial: Tensor | None = None,
    ) -> None:
        if not callable(f):
            raise TypeError(f"f must be a function of an image, got {type(f).__name__}")
        if interface not in get_args(Interface):
            raise ValueError(f"unknown interface {interface!r}; known: torch, numpy")
        if field not in ("real", "complex"):
            raise ValueError(f"unknown field {field!r}; known: real, complex")
        if interface == "numpy" and differentiable:
            raise ValueError(
                "autograd does not see through NumPy: pass differentiable=False or write f in torch"
            )
        self.f, self.batched, self.interface = f, batched, interface
        self.event_shape = check_shape("event_shape", event_shape)
        self.event_ndim = len(self.event_shape)
        self.event_field = field
        self.differentiable = differentiable
        self._check_function(self._trial(trial), measurement_shape)

    def _trial(self, trial: Tensor | None) -> Tensor:
        if trial is None:
            dtype = torch.complex64 if self.event_field == "complex" else torch.float32
            generator = torch.Generator().manual_seed(0)
            assert self.event_shape is not None
            trial = torch.rand((2, *self.event_shape), generator=generator, dtype=dtype)
        self.check_image(trial)
        if len(trial) < 2:
            raise ValueError("trial holds one image; two or more are needed to compare batches")
        return trial.detach()

    def _check_function(self, x: Tensor, measurement_shape: Shape | None) -> None:
        before = x.clone()
        y = self._apply(x)
        if not torch.equal(x, before):
            raise ValueError("f changes its input in place; let it work on a copy")
        shape = tuple(y.shape[1:])
        expected = None if measurement_shape is None else tuple(measurement_shape)
        if expected is not None and shape != expected:
            raise ValueError(f"f returned {tuple(y.shape)} for {len(x)} images, expected "
                             f"({len(x)}, {', '.join(map(str, expected))})")  # fmt: skip
        if not bool(torch.isfinite(y).all()):
            raise ValueError(
                f"f returned {int((~torch.isfinite(y)).sum())} values of {y.numel()} that are not "
                "finite; if trial images in [0, 1] are no good input, pass trial="
            )
        scale = float(y.detach().abs().max())
        tolerance = 1e3 * torch.finfo(y.dtype).eps * scale
        if float((self._apply(x) - y).detach().abs().max()) > tolerance:
            raise ValueError(
                "f returned two results for the same images: randomness belongs to the noise model"
            )
        alone = torch.cat([self._apply(x[i : i + 1]) for i in range(len(x))])
        if float((alone - y).detach().abs().max()) > tolerance:
            raise ValueError(
                "f returned another result for an image alone than in a batch: each sample must be "
                "computed alone; call eval() on networks, or pass batched=False"
            )
        if self.differentiable:
            self._check_gradient(x)
        self.measurement_shape, self.measurement_ndim = shape, len(shape)
        self.measurement_field = "complex" if y.is_complex() else "real"

    def _check_gradient(self, x: Tensor) -> None:
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            y = self._apply(leaf)
            gradient = None
            if y.requires_grad:
                # At random: a sum may be constant where f is not.
                generator = torch.Generator().manual_seed(1)
                seen = torch.view_as_real(y) if y.is_complex() else y
                weight = torch.randn(seen.shape, generator=generator).to(seen)
                (gradient,) = torch.autograd.grad((weight * seen).sum(), leaf, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "autograd finds no way from f(x) back to x: f detaches it or leaves torch; pass "
                "differentiable=False, or write f in torch operations"
            )
        if not bool(gradient.any()):
            raise ValueError(
                "the gradient of f is exactly zero at all trial images, as where f rounds or "
                "counts, so a method that follows it would never see y: pass differentiable=False, "
                "or trial= with images at which f is not flat"
            )

    def _apply(self, x: Tensor) -> Tensor:
        if self.differentiable:
            return self._evaluate(x)
        with torch.no_grad():
            return self._evaluate(x)

    def _evaluate(self, x: Tensor) -> Tensor:
        y = self._call(x) if self.batched else torch.stack([self._call(one) for one in x])
        if y.ndim == 0 or len(y) != len(x):
            raise ValueError(
                f"f returned shape {tuple(y.shape)} for {len(x)} images: the batch axis comes "
                "first; pass batched=False if f takes one image"
            )
        if self.measurement_shape is not None and tuple(y.shape[1:]) != self.measurement_shape:
            raise ValueError(
                f"f returned {tuple(y.shape)}, expected (B, *{self.measurement_shape}) as at first"
            )
        return y

    def _call(self, x: Tensor) -> Tensor:
        if self.interface == "torch":
            y = check_tensor("what f returns", self.f(x))
            if y.dtype not in (x.dtype.to_real(), x.dtype.to_complex()):
                raise TypeError(
                    f"f returned {y.dtype} for images of {x.dtype}; return the same precision"
                )
            return y
        array = self.f(x.detach().cpu().numpy().copy())
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fc":
            came = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"f must return a NumPy array of floats or complex numbers, got {came}")
        precision = x.dtype.to_complex() if array.dtype.kind == "c" else x.dtype.to_real()
        return torch.from_numpy(np.ascontiguousarray(array)).to(device=x.device, dtype=precision)


def from_simulator(
    f: Callable[[Any], Any],
    noise: Noise,
    event_shape: Shape,
    measurement_shape: Shape | None = None,
    differentiable: bool = True,
    *,
    batched: bool = True,
    interface: Interface = "torch",
    field: Field = "real",
    trial: Tensor | None = None,
) -> Observation:
    """The forward model of a simulator f and the noise of its recording: p(y | x0) = p(y | f(x0)).

    The arguments are those of `Simulator`, and `noise` any noise model: for example
    `from_simulator(f, Gaussian(0.05), (1, 64, 64))`. Pass `differentiable=False` where autograd
    does not see through f or its gradient is zero, as where f rounds. Raises as `Simulator` and
    `Observation`.
    """
    operator = Simulator(
        f, event_shape, measurement_shape, differentiable,
        batched=batched, interface=interface, field=field, trial=trial,
    )  # fmt: skip
    return Observation(operator, noise)
