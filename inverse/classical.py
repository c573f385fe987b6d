"""The classical answers that posterior means are compared with, and the measures of both.

`wiener` and `fill` never see the truth: what they need to know of natural images is estimated from
the measurement, or set once for all. `back_project` chooses its filter by the truth where it is
given, in its own favour.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from forward_models import Blur, Tomography
from forward_models import fbp as filtered_back_projection

EXPONENTS = (1.5, 2.0, 2.5, 3.0, 3.5)
"""Falls of a natural image's power with frequency, |f|^-p, that `wiener` chooses from."""


def wiener(operator: Blur, y: Tensor, sigma: float) -> Tensor:
    """Non-blind Wiener deconvolution of a circular blur, (B, C, H, W) -> (B, C, H, W).

        x^(f) = conj(k^) S / (|k^|^2 S + sigma^2) y^(f),      S(f) = a |f|^-p,

    with f in cycles a pixel, and the mean (f = 0) only divided by k^(0). The colours are first
    rotated to the principal axes of y, where they are nearly uncorrelated. Per axis, a and p
    maximise the likelihood of y^ as independent Gaussians of variance |k^|^2 S + sigma^2 (Whittle's
    likelihood) over p in `EXPONENTS` and a fine grid of a. The linear estimate of least mean square
    error if the image is a stationary Gaussian of that spectrum.

    Args:
        operator: a Blur with circular padding.
        y: the blurred image, in any unit.
        sigma: standard deviation of its noise, in the unit of y.
    Raises:
        ValueError: another padding, or a sigma that is not positive.

    Paper: van der Schaaf and van Hateren, "Modelling the Power Spectra of Natural Images", 1996,
    https://doi.org/10.1016/0042-6989(96)00002-8
    """
    if operator.padding != "circular":
        raise ValueError(f"Wiener's filter needs a circular blur, got padding {operator.padding!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be positive and finite, got {sigma}")
    return torch.stack([_wiener_one(operator, image, sigma) for image in y])


def _wiener_one(operator: Blur, y: Tensor, sigma: float) -> Tensor:
    channels, height, width = y.shape
    y64 = y.double()
    centred = y64 - y64.mean((1, 2), keepdim=True)
    axes = torch.linalg.eigh(torch.einsum("chw,dhw->cd", centred, centred)).eigenvectors
    rotated = torch.einsum("dc,dhw->chw", axes, y64)

    kernel = torch.zeros(1, 1, height, width, dtype=torch.float64)
    kernel[..., 0, 0] = 1
    k = torch.fft.fft2(operator.apply(kernel)[0, 0])
    gain = k.abs().square()
    rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    squared = (rows[:, None].square() + columns[None].square()).double()
    other = squared > 0
    spectrum = torch.fft.fft2(rotated, norm="ortho")
    out = torch.empty_like(spectrum)
    for c in range(channels):
        power = spectrum[c].abs().square()
        best, fall = math.inf, torch.ones_like(squared)
        for p in EXPONENTS:
            shape = torch.where(other, squared, 1.0) ** (-p / 2)
            # From where the image drowns in the noise to where all of y is image.
            high = float((power / (gain * shape).clamp(min=1e-12))[other].median()) + sigma**2
            for a in np.geomspace(1e-6 * high, 1e3 * high, 120):
                variance = (gain * a * shape + sigma**2)[other]
                loss = float((variance.log() + power[other] / variance).sum())
                if loss < best:
                    best, fall = loss, a * shape
        filtered = k.conj() * fall / (gain * fall + sigma**2) * spectrum[c]
        out[c] = torch.where(other, filtered, spectrum[c] / k)
    restored = torch.fft.ifft2(out, norm="ortho").real
    return torch.einsum("dc,chw->dhw", axes, restored).to(y.dtype)


def fill(
    mask: Tensor, y: Tensor, sigma: float = 0.0, denoise: Literal["nlm", "tv"] | None = "nlm"
) -> Tensor:
    """Missing pixels by the biharmonic equation, then a denoiser for what was measured with noise.

    Args:
        mask: (H, W), or (C, H, W) equal in all channels; positive where y is measured.
        y: (B, C, H, W), in [0, 1] but for the noise.
        sigma: standard deviation of the noise of y; 0 leaves the denoiser out.
        denoise: non-local means (on photographs the better of the two, by about 1 dB), total
            variation, or None. Their strengths are set in multiples of sigma, to those best on
            average over four photographs at 35 % of the pixels and sigma = 0.05.

    Papers: Damelin and Hoang, "On Surface Completion and Image Inpainting by Biharmonic
    Functions", 2018, https://doi.org/10.1155/2018/3950312; Buades et al., "Non-Local Means
    Denoising", 2011, https://doi.org/10.5201/ipol.2011.bcm_nlm; Chambolle, "An Algorithm for Total
    Variation Minimization", 2004, https://doi.org/10.1023/B:JMIV.0000011325.36760.1e
    """
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, inpaint_biharmonic

    seen = mask.expand(y.shape[1:]) > 0
    if bool((seen != seen[:1]).any()):
        raise ValueError("the mask must be the same in every channel")
    missing = ~seen[0].cpu().numpy()
    out = []
    for image in y.detach().cpu().double().permute(0, 2, 3, 1).numpy():
        filled = inpaint_biharmonic(image, missing, channel_axis=-1) if missing.any() else image
        if sigma > 0 and denoise == "nlm":
            filled = denoise_nl_means(
                filled, patch_size=5, patch_distance=9, h=0.6 * sigma, sigma=sigma, channel_axis=-1
            )
        elif sigma > 0 and denoise == "tv":
            filled = denoise_tv_chambolle(filled, weight=sigma, channel_axis=-1)
        # A single channel comes back without its axis.
        whole = torch.from_numpy(np.ascontiguousarray(filled).reshape(image.shape))
        out.append(whole.permute(2, 0, 1))
    return torch.stack(out).to(y)


def back_project(
    operator: Tomography, y: Tensor, truth: Tensor | None = None
) -> tuple[Tensor, Literal["ramp", "hann"]]:
    """Filtered back-projection and the name of its filter.

    With the truth the filter, ramp or hann, that is nearer to it: a choice in favour of the
    classical answer. Without it hann, the one that holds down noise.
    """
    if truth is None:
        return filtered_back_projection(operator, y, "hann"), "hann"
    ramp, hann = (filtered_back_projection(operator, y, f) for f in ("ramp", "hann"))
    ramp_is_nearer = (ramp - truth).square().mean() < (hann - truth).square().mean()
    return (ramp, "ramp") if bool(ramp_is_nearer) else (hann, "hann")


def psnr(truth: Tensor, estimate: Tensor, data_range: float | None = None) -> float:
    """10 log10(data_range^2 / mean square error), in dB; by default the range of the truth."""
    from skimage.metrics import peak_signal_noise_ratio

    t, e = _pair(truth, estimate)
    return float(peak_signal_noise_ratio(t, e, data_range=data_range or float(t.max() - t.min())))


def ssim(truth: Tensor, estimate: Tensor, data_range: float | None = None) -> float:
    """Structural similarity of (C, H, W), averaged over channels; windows of 7 x 7 pixels.

    Paper: Wang et al., "Image Quality Assessment", 2004, https://doi.org/10.1109/TIP.2003.819861
    """
    from skimage.metrics import structural_similarity

    t, e = _pair(truth, estimate)
    span = data_range or float(t.max() - t.min())
    side = min(7, *t.shape[1:])
    window = side if side % 2 else side - 1
    return float(structural_similarity(t, e, data_range=span, channel_axis=0, win_size=window))


def _pair(truth: Tensor, estimate: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if truth.shape != estimate.shape:
        raise ValueError(f"truth has shape {tuple(truth.shape)}, not {tuple(estimate.shape)}")
    return truth.detach().cpu().double().numpy(), estimate.detach().cpu().double().numpy()
