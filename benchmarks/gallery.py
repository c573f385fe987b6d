"""Every forward model on one picture: what it records, and for linear ones A^T y as an inset.

    python benchmarks/gallery.py --out benchmarks/results/gallery.png

The picture is scikit-image's astronaut, 128 x 128. Complex values and diffraction patterns are
shown as log-moduli, vectors as their values in reading order; every tile is stretched to its own
range (0.5 to 99.5 % of its values).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import forward_models as fm

SIZE = 128
GREY, COLOUR = (1, SIZE, SIZE), (3, SIZE, SIZE)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pictures() -> dict[str, Tensor]:
    """The picture (1, C, H, W) in [0, 1], and cut to what a few models take."""
    from skimage import data, transform

    face = transform.resize(data.astronaut()[:256, 96:352], (SIZE, SIZE), anti_aliasing=True)
    colour = torch.from_numpy(face).movedim(-1, 0)[None].float()
    grey = fm.greyscale()(colour)
    small = fm.Resize(GREY, (32, 32), "box")(grey)
    return {
        "colour": colour, "grey": grey, "complex": fm.RealToComplex()(grey),
        "volume": colour[:, None], "row": grey[:, :, SIZE // 2 : SIZE // 2 + 1],
        "contrast": 0.5 * small,
        "digit": 1 - fm.Resize(GREY, (28, 28), "box")(grey),
    }  # fmt: skip


def peaked(value: Tensor) -> bool:
    """Whether a few values outshine all others, as in a diffraction pattern."""
    return bool(value.min() >= 0) and bool(value.max() > 100 * value.median() > 0)


def as_image(value: Tensor) -> np.ndarray:
    """A measurement (C, ...) as something to look at, (h, w) or (h, w, 3)."""
    value = value.detach()
    if value.is_complex() or peaked(value):
        value = (value.abs() / value.abs().max() + 1e-4).log()
    if value.ndim == 2 and value.shape[0] == 1:
        value = value.reshape(-1)
    if value.ndim == 1:
        side = math.ceil(math.sqrt(value.numel()))
        value = torch.nn.functional.pad(value, (0, side**2 - value.numel())).reshape(side, side)
    value = value.reshape(-1, *value.shape[-2:])
    if value.shape[0] != 3:
        columns = math.ceil(math.sqrt(value.shape[0]))
        blank = value.new_full((columns * -(-len(value) // columns), *value.shape[1:]), value.min())
        blank[: len(value)] = value
        rows = blank.reshape(-1, columns, *value.shape[1:])
        value = torch.cat([torch.cat(list(row), 1) for row in rows], 0)[None]
    low, high = value.float().flatten().quantile(torch.tensor([0.005, 0.995]))
    value = ((value - low) / (high - low)).clamp(0, 1) if high > low else 0 * value
    return value.movedim(0, -1).squeeze(-1).float().numpy()


def coil_maps(coils: int = 4) -> Tensor:
    """Smooth complex sensitivities (coils, H, W) of coils around the picture."""
    t = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(coils) / coils
    y, x = t[:, None] - angle.sin()[:, None, None], t[None, :] - angle.cos()[:, None, None]
    return torch.polar(torch.exp(-(x.square() + y.square()) / 2), x - y)


Maker = Callable[[], fm.Operator | fm.ForwardModel]


def shaken() -> Tensor:
    return fm.shake_kernel(15, generator=rng())


def some_rows(count: int) -> Tensor:
    return torch.randperm(SIZE**2, generator=rng())[:count]


def varying() -> fm.VaryingBlur:
    kernels = torch.stack([fm.gaussian_kernel(s, 19) for s in (0.4, 1.0, 2.0, 3.0)])
    return fm.VaryingBlur(kernels, fm.grid_weights(SIZE, SIZE, 2, 2))


def noisy(noise: fm.Noise) -> Maker:
    return lambda: fm.Observation(fm.Affine(0.9, 0.1), noise)


def fan(detector: str) -> fm.FanBeam:
    angles = [2.0 * a for a in range(180)]
    return fm.FanBeam(
        (SIZE, SIZE), angles, source_origin=300.0, source_detector=500.0, detector=detector
    )


def baselines() -> Tensor:
    """Tracks of an interferometer as the Earth turns, in cycles per pixel, (M, 2)."""
    t = torch.linspace(0, math.pi, 120, dtype=torch.float64)
    lengths = 0.45 * torch.rand(24, 1, generator=rng()).double()
    starts = 2 * math.pi * torch.rand(24, 1, generator=rng()).double()
    return torch.stack(
        [lengths * (t + starts).cos(), 0.7 * lengths * (t + starts).sin()], -1
    ).flatten(0, 1)


def correlated() -> fm.Observation:
    apart = (torch.arange(SIZE)[:, None] - torch.arange(SIZE)).double()
    return fm.Observation(
        fm.Identity((1, 1, SIZE)), fm.CorrelatedGaussian(0.02 * torch.exp(-apart.abs() / 6))
    )


SCENE: dict = {
    "image_shape": (32, 32), "pixel": 1.0, "wavelength": 12.0,
    "illuminations": 32, "receivers": 64, "radius": 40.0,
}  # fmt: skip


class Swirl(torch.nn.Module):
    """A stand-in for a trained network: blur that grows with the brightness."""

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.nn.functional.avg_pool2d(x, 7, 1, 3, count_include_pad=False)
        return x + x.clamp(0, 1) * (wide - x)


def growth(x: Tensor) -> Tensor:
    """Colonies that spread and grow."""
    for _ in range(30):
        u = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        near = u[..., 2:, 1:-1] + u[..., :-2, 1:-1] + u[..., 1:-1, 2:] + u[..., 1:-1, :-2]
        x = x + 0.1 * (near - 4 * x + x * (1 - x))
    return x


class Noised(fm.Operator):
    """The measurement y_sigma that moves with the image, for a blurred picture."""

    def _apply(self, x: Tensor) -> Tensor:
        model = fm.LinearGaussian(fm.Blur(fm.gaussian_kernel(2.0), "reflect"), 0.02)
        return fm.NoisedMeasurement(model).measurement(model.simulate(x, rng()), x, 0.5)


class Logits(fm.Operator):
    """The probabilities that a classifier gives, as a row of grey values."""

    def __init__(self, model: fm.Classifier | fm.NoisyClassifier, sigma: float = 0.0) -> None:
        self.model, self.sigma = model, sigma

    def _apply(self, x: Tensor) -> Tensor:
        if isinstance(self.model, fm.NoisyClassifier):
            noise = torch.randn(x.shape, generator=rng())
            logits = self.model.logits(x + self.sigma * noise, self.sigma)
        else:
            logits = self.model.logits(x)
        return logits.detach().softmax(1)[:, None, None]


# (room, title, which picture, maker). A new forward model is one line.
MODELS: list[tuple[str, str, str, Maker]] = [
    ("masks", "box", "colour", lambda: fm.Inpainting(fm.box_mask((SIZE, SIZE), 40, 40, 48, 48))),
    ("masks", "random 30 %", "colour",
     lambda: fm.Inpainting(fm.random_mask((SIZE, SIZE), 0.3, rng()))),
    ("masks", "Bernoulli, each channel", "colour",
     lambda: fm.Inpainting(fm.bernoulli_mask(COLOUR, 0.5, rng()))),
    ("masks", "soft", "colour",
     lambda: fm.Inpainting(torch.linspace(0, 1, SIZE).expand(SIZE, SIZE).contiguous())),
    ("blur", "Gaussian", "colour", lambda: fm.Blur(fm.gaussian_kernel(2.0), "reflect")),
    ("blur", "anisotropic", "colour",
     lambda: fm.Blur(fm.anisotropic_gaussian_kernel(4.0, 1.0, 30.0), "reflect")),
    ("blur", "motion", "colour", lambda: fm.Blur(fm.motion_kernel(15, 30), "replicate")),
    ("blur", "camera shake", "colour", lambda: fm.Blur(shaken(), "constant")),
    ("blur", "defocus", "colour", lambda: fm.Blur(fm.disk_kernel(4.5), "circular")),
    ("blur", "varying in space", "colour", varying),
    ("sampling", "4 x 4 boxes", "colour", lambda: fm.Downsampling(4)),
    ("sampling", "bicubic x 1/4", "colour", lambda: fm.Resize(COLOUR, (32, 32))),
    ("sampling", "blur and stride 3", "colour",
     lambda: fm.Downsampling(3, fm.gaussian_kernel(1.5), "reflect", COLOUR)),
    ("colour", "grey", "colour", lambda: fm.greyscale()),
    ("colour", "two of three", "colour", lambda: fm.select_channels([0, 2], 3)),
    ("colour", "Bayer mosaic", "colour", lambda: fm.BayerMosaic("RGGB")),
    ("colour", "spectral responses", "colour",
     lambda: fm.ChannelMixing(fm.gaussian_responses([620, 540, 460], [600, 500], 60.0))),
    ("sensing", "random matrix", "grey", lambda: fm.gaussian_sensing(1024, GREY, rng())),
    ("sensing", "cosine rows", "grey",
     lambda: fm.Subsampled(fm.CosineTransform(GREY), torch.arange(2048))),
    ("sensing", "Hadamard rows", "grey",
     lambda: fm.Subsampled(fm.HadamardTransform(GREY), some_rows(4096))),
    ("sensing", "Fourier rows", "grey",
     lambda: fm.Subsampled(fm.FourierTransform(GREY), torch.arange(4096))),
    ("sensing", "signs, cosine rows", "grey",
     lambda: fm.Subsampled(
         fm.CosineTransform(GREY) @ fm.RandomSigns(GREY, rng()), some_rows(4096))),
    ("sensing", "random convolution", "grey", lambda: fm.RandomConvolution(GREY, rng())),
    ("sensing", "single pixel", "grey", lambda: fm.SinglePixel(GREY, 4096, values="signed")),
    ("CT", "parallel beam", "grey",
     lambda: fm.Tomography((SIZE, SIZE), torch.arange(0, 180, 1.0))),
    ("CT", "fan beam, flat", "grey", lambda: fan("flat")),
    ("CT", "fan beam, curved", "grey", lambda: fan("curved")),
    ("CT", "limited angle", "grey", lambda: fm.Tomography((SIZE, SIZE), torch.arange(0, 60, 0.5))),
    ("CT", "low dose: photons", "grey",
     lambda: fm.Observation(
         fm.Tomography((SIZE, SIZE), torch.arange(0, 180, 1.0), pixel_spacing=0.05),
         fm.Transmission(300.0))),
    ("CT", "slices of a volume", "volume",
     lambda: fm.SliceStack(fm.Tomography((SIZE, SIZE), torch.arange(0, 180, 1.0)), 3)),
    ("CT", "cone beam, 9 rows", "volume",
     lambda: fm.ConeBeam(
         (3, SIZE, SIZE), torch.arange(0, 360, 8.0), source_origin=300.0, source_detector=500.0,
         detector_shape=(9, 160), detector_spacing=2.0)),
    ("MRI", "single coil, lines", "complex",
     lambda: fm.MRI(fm.random_lines(SIZE, 4.0, center=12, generator=rng()))),
    ("MRI", "4 coils, Poisson disc", "complex",
     lambda: fm.MultiCoilMRI(
         fm.poisson_disc_mask((SIZE, SIZE), 6.0, center=16, generator=rng()), coil_maps())),
    ("MRI", "radial", "complex",
     lambda: fm.Nufft((SIZE, SIZE), fm.radial_trajectory(40, 2 * SIZE))),
    ("MRI", "spiral", "complex",
     lambda: fm.Nufft((SIZE, SIZE), fm.spiral_trajectory(8, 1024, 8.0))),
    ("MRI", "interferometer", "complex",
     lambda: fm.Nufft((SIZE, SIZE), fm.interferometer_trajectory(baselines(), 1.0))),
    ("several", "mask and blur", "grey",
     lambda: fm.Stack([
         fm.Inpainting(fm.random_mask((SIZE, SIZE), 0.3, rng())),
         fm.Blur(fm.gaussian_kernel(3.0), "reflect")], event_shape=GREY)),
    ("several", "noised with the image", "grey", lambda: Noised()),
    ("own", "a linear function", "grey",
     lambda: fm.from_function(lambda x: x.diff(dim=-1), GREY)),
    ("noise", "Gaussian", "grey", noisy(fm.Gaussian(0.1))),
    ("noise", "Poisson", "grey", noisy(fm.Poisson(0.05))),
    ("noise", "Poisson-Gaussian", "grey", noisy(fm.PoissonGaussian(0.05, 0.05))),
    ("noise", "its local Gaussian", "grey", noisy(fm.HeteroscedasticGaussian(0.05, 0.05))),
    ("noise", "correlated along rows", "row", correlated),
    ("noise", "Rician", "grey", noisy(fm.Rician(0.15))),
    ("noise", "Laplace", "grey", noisy(fm.Laplace(0.1))),
    ("noise", "log-normal", "grey", noisy(fm.LogNormal(0.3))),
    ("noise", "speckle, 4 looks", "grey", noisy(fm.GammaSpeckle(4.0))),
    ("noise", "quantised", "grey", noisy(fm.Quantised(0.2, 0.05))),
    ("noise", "saturated", "grey", noisy(fm.Saturated(0.05, 0.3, 0.7))),
    ("noise", "categorical", "colour",
     lambda: fm.Observation(fm.Affine(20.0, 0.0), fm.Categorical(3))),
    ("nonlinear", "phase retrieval", "grey", lambda: fm.PhaseRetrieval(2.0)),
    ("nonlinear", "coded diffraction", "complex",
     lambda: fm.Intensity() @ fm.CodedDiffraction(
         fm.coded_masks(4, (SIZE, SIZE), generator=rng()))),
    ("nonlinear", "hologram", "grey",
     lambda: fm.Intensity() @ fm.AngularSpectrum(0.5, 2.0, 600.0) @ fm.PhaseObject(1.0)),
    ("nonlinear", "ptychography", "complex",
     lambda: fm.Magnitude() @ fm.Ptychography(
         fm.gaussian_kernel(8.0, 48).to(torch.complex128),
         torch.cartesian_prod(*[torch.arange(0, 81, 40)] * 2), (SIZE, SIZE))),
    ("nonlinear", "scattered waves", "contrast", lambda: fm.Scattering(**SCENE)),
    ("nonlinear", "first Born", "contrast", lambda: fm.BornScattering(fm.Scene(**SCENE))),
    ("nonlinear", "high dynamic range", "colour", lambda: fm.HighDynamicRange()),
    ("nonlinear", "tone curve", "colour", lambda: fm.Sigmoid(10.0)),
    ("nonlinear", "JPEG, quality 10", "colour", lambda: fm.JPEG(10)),
    ("nonlinear", "blur in light", "colour", lambda: fm.CameraBlur(shaken(), exposure=2.0)),
    ("nonlinear", "blur by a network", "colour", lambda: fm.NonlinearBlur(Swirl().eval())),
    ("own", "a simulator", "grey",
     lambda: fm.from_simulator(growth, fm.Gaussian(0.03), GREY)),
    ("classes", "digit? 0 ... 9", "digit", lambda: Logits(fm.load_classifier("digits"))),
    ("classes", "at noise level 0.5", "digit",
     lambda: Logits(fm.load_classifier("digits-noisy"), 0.5)),
]  # fmt: skip


def draw(out: Path, columns: int = 8) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    images = pictures()
    tiles = [("", "the picture", as_image(images["colour"][0]), None)]
    for room, title, kind, make in MODELS:
        try:
            model = make()
        except ImportError as error:
            print(f"{room}, {title}: left out, {error}")
            continue
        x = images[kind]
        y = model.simulate(x, rng()) if isinstance(model, fm.ForwardModel) else model.record(x)
        back = as_image(model.adjoint(y)[0].abs()) if isinstance(model, fm.LinearOperator) else None
        tiles.append((room, title, as_image(y[0]), back))
    rows = -(-len(tiles) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 1.95 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (room, title, image, back) in zip(axes.flat, tiles, strict=False):
        axis.imshow(image, cmap="gray", aspect="auto", interpolation="nearest")
        axis.set_title(f"{room}: {title}" if room else title, fontsize=7, pad=2)
        if back is not None:
            inset = axis.inset_axes((0.62, 0.0, 0.38, 0.38))
            inset.imshow(back, cmap="gray", aspect="auto")
            inset.set_xticks([])
            inset.set_yticks([])
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.975, wspace=0.04, hspace=0.14)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    print(f"{len(tiles) - 1} forward models in {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/gallery.png")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
