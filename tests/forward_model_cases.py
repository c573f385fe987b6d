"""Forward models that the contract of test_forward_models.py runs over: a new one is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from operator_cases import KERNEL, SMALL, SOFT, Dft, normal, rng
from torch import Tensor, nn

import forward_models as fm

Maker = Callable[[int], Tensor]


def images(*shape: int) -> Maker:
    """B -> images (B, *shape), values in [0.1, 0.9], float64."""
    return lambda batch: 0.1 + 0.8 * torch.rand(batch, *shape, generator=rng(5)).double()


def spectra(*shape: int) -> Maker:
    """B -> complex images (B, *shape), complex128."""
    return lambda batch: normal(batch, *shape, dtype=torch.complex128, seed=5)


def classes(count: int) -> Maker:
    """B -> class indices (B,)."""
    return lambda batch: torch.arange(batch) % count


@dataclass(frozen=True)
class Case:
    """A forward model p(y | x0) and the images it is tested on.

    Attributes:
        make: builds the model anew.
        x: B -> clean images (B, *event), float64 or complex128, the same at every call.
        differentiable: whether log p(y | x0) has a gradient in x0 almost everywhere.
        random: whether two draws of y differ.
        single: relative difference allowed between single and double precision, or None where
            rounding x to single precision can change log p(y | x0) by any amount.
    """

    make: Callable[[], fm.ForwardModel]
    x: Maker
    differentiable: bool = True
    random: bool = True
    single: float | None = 1e-4


@dataclass(frozen=True)
class TimeCase:
    """A forward model p_sigma(y | x), and makers of images x and of measurements y, by batch."""

    make: Callable[[], fm.TimeDependent]
    x: Maker
    y: Maker
    single: float | None = 1e-4


def small(noisy: bool = False, channels: int = 1) -> nn.Module:
    """Logits of 3 classes of images (channels, 8, 8), random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = fm.ConvClassifier(3, (8,), (channels, 8, 8), noise_conditional=noisy)
    return network.eval().double().requires_grad_(False)


# A covariance of 5 entries.
ROUND = normal(5, 5, seed=9) @ normal(5, 5, seed=9).T + torch.eye(5).double()

NOISE: dict[str, Case] = {
    "gaussian": Case(lambda: fm.LinearGaussian(fm.Identity(), 0.3), images(2, 5, 4)),
    "gaussian-matrix": Case(
        lambda: fm.LinearGaussian(fm.MatrixOperator(normal(5, 8)), 0.2), images(8)
    ),
    "gaussian-mask": Case(
        lambda: fm.LinearGaussian(fm.Inpainting(fm.random_mask(SMALL, 0.4, rng())), 0.2),
        images(1, 9, 7),
    ),
    "gaussian-entries": Case(
        lambda: fm.LinearGaussian(fm.Blur(KERNEL), 0.1 + torch.rand(2, 9, 7, generator=rng(8))),
        images(2, 9, 7),
    ),
    "gaussian-tomography": Case(
        lambda: fm.LinearGaussian(fm.Tomography(SMALL, [0, 30.0, 100]), 0.5), images(1, 9, 7)
    ),
    "gaussian-complex": Case(
        lambda: fm.LinearGaussian(fm.Inpainting(SOFT) @ Dft(), 0.2), spectra(1, 9, 7)
    ),
    "observation": Case(lambda: fm.Observation(fm.Blur(KERNEL), fm.Gaussian(0.3)), images(2, 9, 7)),
    "correlated": Case(
        lambda: fm.Observation(fm.MatrixOperator(normal(5, 8)), fm.CorrelatedGaussian(ROUND)),
        images(8),
    ),
    "poisson": Case(lambda: fm.Observation(fm.Inpainting(SOFT), fm.Poisson(0.1)), images(2, 9, 7)),
    "transmission": Case(
        lambda: fm.Observation(fm.Tomography(SMALL, [0, 30.0, 100]), fm.Transmission(1e4, 5.0)),
        images(1, 9, 7),
    ),
    "rician": Case(lambda: fm.Observation(fm.Identity(), fm.Rician(0.2)), spectra(1, 9, 7)),
    "rician-real": Case(lambda: fm.Observation(fm.Identity(), fm.Rician(0.2)), images(1, 9, 7)),
    "laplace": Case(lambda: fm.Observation(fm.Blur(KERNEL), fm.Laplace(0.2)), images(2, 9, 7)),
    "log-normal": Case(
        lambda: fm.Observation(fm.Downsampling(2), fm.LogNormal(0.3)), images(1, 8, 6)
    ),
    "speckle": Case(lambda: fm.Observation(fm.Identity(), fm.GammaSpeckle(3)), images(1, 9, 7)),
    "poisson-gaussian": Case(
        lambda: fm.Observation(fm.Identity(), fm.PoissonGaussian(0.05, 0.1)), images(1, 9, 7)
    ),
    "heteroscedastic": Case(
        lambda: fm.Observation(fm.Identity(), fm.HeteroscedasticGaussian(0.05, 0.1)),
        images(1, 9, 7),
    ),
    "quantised": Case(
        lambda: fm.Observation(fm.Blur(KERNEL), fm.Quantised(0.125, 0.2)), images(2, 9, 7)
    ),
    "saturated": Case(
        lambda: fm.Observation(fm.Blur(KERNEL), fm.Saturated(0.2, 0.0, 0.75)), images(2, 9, 7)
    ),
    "categorical": Case(lambda: fm.Observation(fm.Identity(), fm.Categorical(3)), images(3, 9, 7)),
}

NONLINEAR: dict[str, Case] = {
    "phase-retrieval": Case(
        lambda: fm.Observation(fm.PhaseRetrieval(1.5), fm.Gaussian(0.3)), images(1, 6, 5)
    ),
    "coded-diffraction": Case(
        lambda: fm.Observation(
            fm.Intensity() @ fm.CodedDiffraction(fm.coded_masks(2, SMALL, generator=rng())),
            fm.Gaussian(0.5),
        ),
        spectra(1, 9, 7),
    ),
    "hdr": Case(
        lambda: fm.Observation(fm.HighDynamicRange(1.2), fm.Gaussian(0.2)), images(3, 5, 4)
    ),
    "hdr-of-seen": Case(
        lambda: fm.Observation(fm.Reinhard() @ fm.Inpainting(SOFT), fm.Gaussian(0.2)),
        images(1, 9, 7),
    ),
    "jpeg": Case(
        lambda: fm.Observation(fm.JPEG(30, rounding="soft"), fm.Gaussian(0.2)), images(3, 9, 7)
    ),
    "jpeg-rounded": Case(
        lambda: fm.Observation(fm.JPEG(30), fm.Gaussian(0.2)),
        images(3, 9, 7), differentiable=False, single=None,
    ),
    "camera-blur": Case(
        lambda: fm.Observation(fm.CameraBlur(fm.gaussian_kernel(0.8)), fm.Gaussian(0.2)),
        images(1, 6, 7),
    ),
    "scattering": Case(
        lambda: fm.Observation(
            fm.Scattering((4, 5), 0.2, 1.0, illuminations=2, receivers=3, radius=2.0),
            fm.Gaussian(0.1),
        ),
        images(1, 4, 5),
    ),
    "simulator": Case(
        lambda: fm.from_simulator(torch.tanh, fm.Gaussian(0.2), (2, 3, 4)), images(2, 3, 4)
    ),
}  # fmt: skip

CLASSIFIERS: dict[str, Case] = {
    "classifier": Case(lambda: fm.Classifier(small(), 3, (1, 8, 8)), images(1, 8, 8)),
    "attribute": Case(lambda: fm.Classifier(fm.Attribute(small(), 1), 2), images(1, 8, 8)),
    "region": Case(
        lambda: fm.Classifier(
            fm.Region(fm.Head(small(), classes=[2, 0]), (2, 1, 6, 4), (8, 8)), 2, (1, 9, 7)
        ),
        images(1, 9, 7),
    ),
    "preprocessed": Case(
        lambda: fm.Classifier(
            fm.Preprocessed(small(channels=3), 11, 8, "bicubic", grey=True), 3, None, (-1, 1)
        ),
        images(1, 9, 7),
    ),
}

FORWARD_MODELS = NOISE | NONLINEAR | CLASSIFIERS

TIME_DEPENDENT: dict[str, TimeCase] = {
    "noisy-classifier": TimeCase(
        lambda: fm.NoisyClassifier(small(True), 3, (1, 8, 8)), images(1, 8, 8), classes(3)
    ),
    "noisy-attribute": TimeCase(
        lambda: fm.NoisyClassifier(
            fm.Attribute(fm.Region(small(True), (0, 1, 8, 8)), 2), 2, (1, 9, 9), (-1, 1)
        ),
        images(1, 9, 9),
        classes(2),
    ),
    "noised-measurement": TimeCase(
        lambda: fm.NoisedMeasurement(fm.LinearGaussian(fm.Blur(KERNEL), 0.3), seed=3),
        images(2, 9, 7),
        images(2, 9, 7),
    ),
    "noised-mask": TimeCase(
        lambda: fm.NoisedMeasurement(
            fm.Observation(fm.Inpainting(fm.random_mask(SMALL, 0.4, rng())), fm.Gaussian(0.3))
        ),
        images(1, 9, 7),
        images(1, 9, 7),
    ),
    "noised-complex": TimeCase(
        lambda: fm.NoisedMeasurement(
            fm.LinearGaussian(Dft(), 0.5), eps=normal(1, 9, 7, dtype=torch.complex64)
        ),
        spectra(1, 9, 7),
        spectra(1, 9, 7),
    ),
}
