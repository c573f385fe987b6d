"""Image problems with the bundled priors: truth, forward model, measurement, classical answer.

    digits        28 x 28, truths are draws of the bundled prior itself (200 steps): posterior
                  intervals of a right method hold them as often as they say
    photographs   pictures of scikit-image, 64 x 64
    ct            the slice that pydicom comes with, 128 x 128, Hounsfield units
    mri           128 x 128, a draw of the bundled prior of brain slices

The classical answers are chosen in their own favour: total variation with the best of five weights
by the truth, filtered back-projection with the better of two filters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

import forward_models as fm
import inverse
import priors
from inverse import classical
from inverse.demo import _photograph as photograph
from inverse.likelihoods import Tabulated

PICTURES = (("astronaut", 0, 96, 256), ("chelsea", 0, 80, 300), ("coffee", 60, 160, 300))
TV_WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class ImageProblem:
    """One measured picture.

    Attributes:
        name, prior: of the problem, and of the bundled prior.
        model, y, truth: truth (1, C, H, W).
        answers: classical ones by name, (1, C, H, W).
        span: data range of PSNR and SSIM; None for that of the truth.
    """

    name: str
    prior: str
    model: fm.ForwardModel
    y: Tensor
    truth: Tensor
    answers: dict[str, Tensor]
    span: float | None = 1.0


@cache
def prior_of(name: str) -> priors.Prior:
    return priors.load(name)


def drawn(name: str, seed: int) -> Tensor:
    """A draw of a bundled prior, (1, C, H, W), cut to its data range."""
    prior = prior_of(name)
    assert prior.data_range is not None
    return inverse.sample(prior, 1, steps=200, seed=1000 + seed).x.clamp(*prior.data_range)


@cache
def error_table(name: str) -> Tabulated:
    """Of a bundled prior's denoising error, on four of its draws by 30 steps."""
    prior = prior_of(name)
    images = inverse.sample(prior, 4, steps=30, seed=999).x
    grid = priors.geometric(12, prior.sigma_range)[:-1].flip(0)
    return Tabulated.measure(prior, grid, images, generator=torch.Generator().manual_seed(0))


def total_variation(
    operator: fm.LinearOperator, y: Tensor, sigma: float, truth: Tensor, span: float
) -> Tensor:
    """argmin |y - A x|^2 / 2 + weight TV(x), by 60 accelerated proximal steps."""
    from skimage.restoration import denoise_tv_chambolle

    step = 1 / operator.norm(tuple(truth.shape[1:]), iterations=50, tolerance=1e-2) ** 2
    found = []
    for weight in TV_WEIGHTS:
        x = ahead = torch.zeros_like(truth)
        t = 1.0
        for _ in range(60):
            z = ahead + step * operator.adjoint(y - operator.apply(ahead))
            # The weight is in units of sigma and of the step, so that it means the same for all A.
            shrunk = denoise_tv_chambolle(
                z[0].permute(1, 2, 0).double().numpy(),
                weight=weight * max(sigma, 1e-3 * span) * step**0.5, channel_axis=-1,
            )  # fmt: skip
            x_next = torch.from_numpy(np.ascontiguousarray(shrunk)).permute(2, 0, 1)[None].to(truth)
            t_next = (1 + (1 + 4 * t**2) ** 0.5) / 2
            ahead = x_next + (t - 1) / t_next * (x_next - x)
            x, t = x_next, t_next
        found.append(x)
    return min(found, key=lambda x: float((x - truth).square().mean()))


def linear(
    name: str,
    prior: str,
    truth: Tensor,
    operator: fm.LinearOperator,
    sigma: float,
    seed: int,
    answer: Callable[[Tensor], dict[str, Tensor]] = lambda y: {},
) -> ImageProblem:
    model = fm.LinearGaussian(operator, sigma)
    y = model.simulate(truth, torch.Generator().manual_seed(seed))
    answers = {**answer(y), "TV": total_variation(operator, y, sigma, truth, 1.0)}
    return ImageProblem(name, prior, model, y, truth, answers)


def restoration(prior: str, truth: Tensor, seed: int) -> list[Callable[[], ImageProblem]]:
    """What is asked of pictures: inpainting, deblurring, super-resolution, tone, phase."""
    g = torch.Generator().manual_seed(seed)
    shape = tuple(truth.shape[1:])
    H, W = shape[1:]
    box = fm.box_mask((H, W), H // 4, W // 4, H // 2, W // 2)
    some = fm.random_mask((H, W), 0.3, g)
    gauss = fm.Blur(fm.gaussian_kernel(H / 40), "circular", image_shape=shape)
    shaken = fm.Blur(fm.shake_kernel(H / 6, generator=g), "circular", image_shape=shape)
    coarse = fm.Downsampling(4, image_shape=shape)

    def enlarged(y: Tensor) -> dict[str, Tensor]:
        whole = torch.nn.functional.interpolate(y, (H, W), mode="bicubic", align_corners=False)
        return {"bicubic": whole}

    def nonlinear(name: str, operator: fm.Operator, sigma: float) -> ImageProblem:
        model = fm.Observation(operator, fm.Gaussian(sigma))
        y = model.simulate(truth, torch.Generator().manual_seed(seed))
        answers = {"clipped / 2": y / 2} if name == "HDR" else {}
        return ImageProblem(name, prior, model, y, truth, answers)

    def wiener(blur: fm.Blur) -> Callable[[Tensor], dict[str, Tensor]]:
        of_any_size = fm.Blur(blur.kernel, "circular")
        return lambda y: {"Wiener": classical.wiener(of_any_size, y, 0.05)}

    def filled(mask: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
        return lambda y: {"biharmonic": classical.fill(mask, y, 0.05)}

    hidden = fm.Inpainting(box.expand(shape)), filled(box)
    seen = fm.Inpainting(some.expand(shape)), filled(some)
    return [
        lambda: linear("inpainting, box", prior, truth, hidden[0], 0.05, seed, hidden[1]),
        lambda: linear("inpainting, random", prior, truth, seen[0], 0.05, seed, seen[1]),
        lambda: linear("deblurring, Gaussian", prior, truth, gauss, 0.05, seed, wiener(gauss)),
        lambda: linear("deblurring, motion", prior, truth, shaken, 0.05, seed, wiener(shaken)),
        lambda: linear("super-resolution x4", prior, truth, coarse, 0.05, seed, enlarged),
        lambda: nonlinear("HDR", fm.HighDynamicRange(), 0.05),
        lambda: nonlinear("phase retrieval", fm.PhaseRetrieval(2.0), 0.05),
    ]


def tomography(seed: int) -> list[Callable[[], ImageProblem]]:
    """Sparse views, a limited angle, a low dose; noise in line integrals, in their unit."""
    from pydicom.data import get_testdata_file

    image = inverse_io().read_image(str(get_testdata_file("CT_small.dcm", download=False)))
    assert image.spacing is not None
    truth = image.data[None]

    def problem(name: str, angles: list[float], noise: float) -> ImageProblem:
        operator = fm.Tomography(tuple(truth.shape[-2:]), angles, pixel_spacing=image.spacing)
        attenuation = fm.hounsfield_to_attenuation(truth)
        sigma = noise * float(operator.apply(attenuation).mean())
        g = torch.Generator().manual_seed(seed)
        recorded = fm.LinearGaussian(operator, sigma).simulate(attenuation, g)
        y, factor = fm.hounsfield_sinogram(operator, recorded)
        model = fm.LinearGaussian(operator, factor * sigma)
        back, _ = classical.back_project(operator, y, truth)
        tv = total_variation(operator, y, factor * sigma, truth, 1000.0)
        return ImageProblem(name, "ct", model, y, truth, {"FBP": back, "TV": tv}, None)

    def views(count: int, degrees: float = 180.0) -> list[float]:
        return [degrees * i / count for i in range(count)]

    return [
        lambda: problem("CT, 23 views", views(23), 0.01),
        lambda: problem("CT, 90 degrees", views(60, 90.0), 0.01),
        lambda: problem("CT, low dose", views(90), 0.1),
    ]


def inverse_io():  # type: ignore[no-untyped-def]
    import inverse.io

    return inverse.io


def resonance(seed: int) -> list[Callable[[], ImageProblem]]:
    """Lines of k-space, four times fewer than there are."""
    truth = drawn("brain", seed)
    shape = tuple(truth.shape[1:])
    lines = fm.gaussian_lines(shape[-1], 4, 10, generator=torch.Generator().manual_seed(seed))
    operator = fm.MRI(lines, image_shape=shape[-2:]) @ fm.RealToComplex(image_shape=shape)

    def answers(y: Tensor) -> dict[str, Tensor]:
        return {"zero-filled": operator.adjoint(y)}

    return [lambda: linear("MRI x4", "brain", truth, operator, 0.02, seed, answers)]


NAMES = {
    "digits": ["inpainting, box", "inpainting, random", "deblurring, Gaussian",
               "deblurring, motion", "super-resolution x4", "HDR", "phase retrieval"],
    "ct": ["23 views", "90 degrees", "low dose"],
    "mri": ["x4"],
}  # fmt: skip
NAMES["photographs"] = NAMES["digits"]
LABELS = [f"{area}: {name}" for area in ("digits", "photographs", "ct", "mri")
          for name in NAMES[area]]  # fmt: skip


@cache
def _area(area: str, seed: int) -> list[Callable[[], ImageProblem]]:
    if area == "digits":
        return restoration("digits", drawn("digits", seed), seed)
    if area == "photographs":
        name, top, left, width = PICTURES[seed % len(PICTURES)]
        return restoration("photographs", photograph(name, top, left, width, 64), seed)
    return tomography(seed) if area == "ct" else resonance(seed)


def problem(label: str, seed: int) -> ImageProblem:
    """The problem called "area: name", one of LABELS, and which picture or noise."""
    area, name = label.split(": ")
    return _area(area, seed)[NAMES[area].index(name)]()
