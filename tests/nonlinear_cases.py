"""Nonlinear operators that the contract of test_nonlinear.py runs over: a new one is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from operator_cases import SOFT, normal, rng
from torch import Tensor, nn
from torch.nn.functional import conv2d

import forward_models as fm


@dataclass(frozen=True)
class Case:
    """An operator f and the images it is tested on.

    Attributes:
        make: builds f anew.
        shape: of one image.
        low, high: range of its entries, uniform there, where f is differentiable; both parts of
            complex ones.
        exact: whether autograd returns the derivative of f.
        recorded: whether `record` is `apply`.
        single: relative difference allowed between single and double precision.
    """

    make: Callable[[], fm.Operator]
    shape: tuple[int, ...]
    low: float = 0.05
    high: float = 0.95
    exact: bool = True
    recorded: bool = True
    single: float = 2e-6

    def x(self, batch: int, seed: int = 5) -> Tensor:
        """Images (B, *shape), float64 or complex128."""
        complex_ = self.make().event_field == "complex"
        shape = (batch, *self.shape, 2) if complex_ else (batch, *self.shape)
        u = torch.rand(shape, generator=rng(seed), dtype=torch.float64)
        x = self.low + (self.high - self.low) * u
        return torch.view_as_complex(x) if complex_ else x


class Smooth(nn.Module):
    """A small network for images of both precisions, with a kernel code if asked for."""

    def __init__(self, codes: int = 0) -> None:
        super().__init__()
        self.register_buffer("first", normal(3, 2, 3, 3, seed=20) / 4)
        self.register_buffer("last", normal(2, 3, 3, 3, seed=21) / 4)
        self.register_buffer("shift", normal(codes, 3, seed=22) if codes else None)
        self.eval()

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        hidden = conv2d(x, self.first.to(x), padding=1)
        if code is not None:
            hidden = hidden + (code @ self.shift.to(x))[..., None, None]
        return conv2d(torch.tanh(hidden), self.last.to(x), padding=1)


def squares(x: Tensor) -> Tensor:
    """A simulator as a user would write one."""
    return (x * x).flatten(1).cumsum(1)[:, ::3]


SCENE = {
    "image_shape": (5, 4), "pixel": 0.2, "wavelength": 1.0, "illuminations": 2, "receivers": 3,
    "radius": 1.5,
}  # fmt: skip
WINDOWS = torch.tensor([[0, 0], [3, 2], [4, 1], [2, 3]])
PROBE = normal(5, 4, dtype=torch.complex128, seed=11)

NONLINEAR: dict[str, Case] = {
    "magnitude": Case(lambda: fm.Magnitude() @ fm.MatrixOperator(normal(7, 5)), (5,)),
    "intensity": Case(
        lambda: fm.Intensity() @ fm.MatrixOperator(normal(7, 5, dtype=torch.complex128)), (5,)
    ),
    "phase-retrieval": Case(lambda: fm.PhaseRetrieval(1.5), (2, 6, 5)),
    "phase-retrieval-even": Case(lambda: fm.PhaseRetrieval(2, "intensity", (1, 5, 4)), (1, 5, 4)),
    "phase-retrieval-complex": Case(
        lambda: fm.PhaseRetrieval(2) @ fm.RealToComplex(SOFT[:4, :5]), (1, 4, 5)
    ),
    "coded-diffraction": Case(
        lambda: fm.Intensity() @ fm.CodedDiffraction(fm.coded_masks(3, (5, 4), "octanary", rng())),
        (1, 5, 4),
    ),
    "coded-diffraction-real": Case(
        lambda: (
            fm.Magnitude()
            @ fm.CodedDiffraction(fm.coded_masks(2, (5, 4), "unimodular", rng()))
            @ fm.RealToComplex()
        ),
        (2, 5, 4),
    ),
    "hologram": Case(
        lambda: fm.Intensity() @ fm.AngularSpectrum(0.6, 2.0, 30.0) @ fm.PhaseObject(2.0), (1, 6, 5)
    ),
    "ptychography": Case(
        lambda: fm.Magnitude() @ fm.Ptychography(PROBE, WINDOWS, (9, 7)), (1, 9, 7)
    ),
    "hdr": Case(lambda: fm.HighDynamicRange(), (3, 4, 5), 0.3, 0.7),
    "hdr-of-seen": Case(
        lambda: fm.HighDynamicRange(1.3, 0.0) @ fm.Inpainting(SOFT), (2, 9, 7), 0.1, 0.7
    ),
    "gamma": Case(lambda: fm.Gamma(), (1, 4, 5), -0.2, 1.2),
    "linear-light": Case(lambda: fm.LinearLight(1 / 0.45, 0.099), (7,), -0.2, 1.2),
    "reinhard": Case(lambda: fm.Reinhard(), (1, 4, 5), -2, 4),
    "reinhard-white": Case(lambda: fm.Reinhard(3.0), (1, 4, 5), -2, 4),
    "sigmoid": Case(lambda: fm.Sigmoid(), (1, 4, 5), -1, 2),
    "camera-blur": Case(lambda: fm.CameraBlur(fm.gaussian_kernel(0.8), exposure=0.9), (2, 6, 7)),
    "network-blur": Case(lambda: fm.NonlinearBlur(Smooth()), (2, 6, 5)),
    "network-blur-code": Case(lambda: fm.NonlinearBlur(Smooth(4), normal(4), (2, 6, 5)), (2, 6, 5)),
    "jpeg": Case(
        lambda: fm.JPEG(30), (3, 17, 11), 0.3, 0.7, exact=False, recorded=False, single=0.05
    ),
    "jpeg-soft": Case(
        lambda: fm.JPEG(30, rounding="soft"), (3, 9, 11), 0.3, 0.7, recorded=False, single=1e-5
    ),
    "jpeg-soft-full": Case(
        lambda: fm.JPEG(70, "4:4:4", "soft"), (3, 9, 5), 0.3, 0.7, recorded=False, single=1e-5
    ),
    "jpeg-soft-wide": Case(
        lambda: fm.JPEG(70, "4:2:2", "soft"), (3, 9, 5), 0.3, 0.7, recorded=False, single=1e-5
    ),
    "jpeg-soft-grey": Case(
        lambda: fm.JPEG(30, rounding="soft"), (1, 9, 5), 0.3, 0.7, recorded=False, single=1e-5
    ),
    "scattering": Case(lambda: fm.Scattering(**SCENE), (1, 5, 4), 0.0, 2.0, single=1e-5),
    "scattering-line": Case(
        lambda: fm.Scattering(**(SCENE | {"source": "line", "image_shape": (3, 6)})),
        (1, 3, 6),
        -0.5,
        1.0,
        single=1e-5,
    ),
    "simulator": Case(lambda: fm.Simulator(squares, (2, 3, 4)), (2, 3, 4)),
    "tone-of-projections": Case(
        lambda: fm.Reinhard() @ fm.Tomography((6, 5), [0, 40.0, 90]), (1, 6, 5)
    ),
    "mask-of-tone": Case(lambda: fm.Inpainting(SOFT) @ fm.Sigmoid(), (1, 9, 7)),
}
