"""Four small reconstructions that show what the toolkit does, offline and in minutes.

Pictures come from scikit-image and pydicom, as installed; priors and classifiers are the bundled
ones. Each job writes a panel; `metrics.json` holds the numbers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import priors
from forward_models import (
    Blur,
    Inpainting,
    LinearGaussian,
    Tomography,
    gaussian_kernel,
    hounsfield_sinogram,
    hounsfield_to_attenuation,
    random_mask,
)
from forward_models import load_classifier as load_bundled_classifier
from priors import Prior

from . import classical
from .figures import Column, Row, banner, panel
from .io import read_image, write_bytes
from .posterior import Posterior, condition
from .result import Samples
from .samplers import Step
from .sampling import sample


@dataclass(frozen=True)
class Job:
    """What is run: the prior's name, the method, its steps, and how many samples."""

    name: str
    prior: str
    method: str
    steps: int
    n: int


JOBS = (
    Job("digits", "digits", "exact", steps=100, n=12),
    Job("deblur", "photographs", "mmps", steps=24, n=12),
    Job("inpaint", "photographs", "mmps", steps=24, n=12),
    Job("ct", "ct", "mmps", steps=24, n=8),
)

BLUR_SIGMA, BLUR_NOISE = 1.5, 0.02
KEEP, INPAINT_NOISE = 0.7, 0.1
ANGLES, CT_NOISE = 30, 0.01
CT_WINDOW = (-700.0, 500.0)

METRICS = {
    "psnr_classical": "PSNR of the classical answer in dB; data range 1 for photographs, the range "
    "of the truth for CT",
    "psnr_mean": "PSNR of the mean of the samples",
    "ssim_classical": "SSIM of the classical answer, same data range",
    "ssim_mean": "SSIM of the mean of the samples",
    "residual_sigma": "root mean square of (y - A x) / sigma_y over samples and measured values; "
    "1 for the truth",
    "coverage90": "share of values whose truth lies within mean +- t std sqrt(1 + 1/n), t the 95 % "
    "point of Student's law with n - 1 degrees of freedom: 0.9 if samples and truth are "
    "independent draws of one Gaussian (n is too small for order statistics)",
    "class_accuracy": "share of samples that an independent classifier, trained on clean images, "
    "assigns to the class asked for",
    "class_probability": "mean probability that it gives to that class",
    "network_calls": "calls of the prior's network for each sample",
    "jacobian_products": "vector-Jacobian products of the network for each sample",
    "seconds": "wall-clock time of drawing all n samples",
}

Progress = Callable[[str, Step], None]


def run(
    out: str | Path,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    digit: int = 7,
    load: Callable[[str], Prior] = priors.load,
    load_classifier: Callable[[str], Any] = load_bundled_classifier,
    jobs: tuple[Job, ...] = JOBS,
) -> list[dict[str, Any]]:
    """Run the jobs; write <job>.png, banner.png and metrics.json into `out`; return the metrics.

    Args:
        out: a folder, made where missing; files of these names in it are replaced.
        seed: of the measurement noise, the mask and the samples.
        progress: called with (job, Step) after each step.
        digit: the class of the job "digits".
        load, load_classifier: name -> prior, name -> classifier; the bundled ones.
        jobs: which to run, and how.
    Returns:
        One dict a job; see METRICS, and keys are left out where they mean nothing.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    results, rows = [], []
    for job in jobs:
        prior = load(job.prior)
        if job.name == "digits":
            result, row = _digits(job, prior, load_classifier, digit, seed, progress)
        else:
            result, row = _reconstruction(job, prior, seed, progress)
        panel(out / f"{job.name}.png", row.columns, window=row.window, label=row.label)
        results.append(result)
        rows.append(row)
    banner(out / "banner.png", [Row(r.label, r.columns[:8], r.window) for r in rows])
    report = {"seed": seed, "jobs": results, "metrics": METRICS}
    write_bytes(out / "metrics.json", (json.dumps(report, indent=2) + "\n").encode())
    return results


def table(results: list[dict[str, Any]]) -> str:
    """The metrics as aligned text, one line a job."""
    heads = {
        "job": "job", "method": "method", "n": "n", "psnr_classical": "PSNR classical",
        "psnr_mean": "PSNR mean", "ssim_classical": "SSIM classical", "ssim_mean": "SSIM mean",
        "residual_sigma": "residual/sigma", "coverage90": "coverage 90 %",
        "class_accuracy": "right class", "network_calls": "calls", "seconds": "seconds",
    }  # fmt: skip
    digits = {"psnr": 2, "ssim": 3, "resi": 2, "cove": 2, "clas": 2, "seco": 1}

    def cell(result: dict[str, Any], key: str) -> str:
        value = result.get(key, "-")
        return f"{value:.{digits[key[:4]]}f}" if isinstance(value, float) else str(value)

    lines = [list(heads.values())] + [[cell(r, key) for key in heads] for r in results]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            v.ljust(w) if i < 2 else v.rjust(w)
            for i, (v, w) in enumerate(zip(li, widths, strict=True))
        )
        for li in lines
    )


def coverage(samples: Samples, truth: Tensor, level: float = 0.9) -> float:
    """Share of values of the truth inside mean +- t std sqrt(1 + 1/n).

    The prediction interval of one more draw from a Gaussian of unknown mean and variance; for
    few samples, where `Samples.interval` has no order statistics to use.
    """
    from scipy.stats import t

    n = len(samples)
    half = float(t.ppf((1 + level) / 2, n - 1)) * math.sqrt(1 + 1 / n) * samples.std
    return float(((truth - samples.mean).abs() <= half).float().mean())


def _draw(posterior: Posterior, job: Job, seed: int, progress: Progress | None) -> Samples:
    def report(step: Step) -> None:
        if progress is not None:
            progress(job.name, step)

    return sample(posterior, job.n, method=job.method, steps=job.steps, seed=seed, callback=report)


def _metrics(job: Job, samples: Samples, seconds: float) -> dict[str, Any]:
    spent = {key: samples.diagnostics[key] for key in ("network_calls", "jacobian_products")}
    return {"job": job.name, "method": job.method, "steps": job.steps, "n": job.n, **spent,
            "seconds": seconds}  # fmt: skip


def _digits(
    job: Job,
    prior: Prior,
    load_classifier: Callable[[str], Any],
    digit: int,
    seed: int,
    progress: Progress | None,
) -> tuple[dict[str, Any], Row]:
    posterior = condition(prior, load_classifier("digits-noisy"), torch.tensor(digit))
    began = time.perf_counter()
    samples = _draw(posterior, job, seed, progress)
    metrics = _metrics(job, samples, time.perf_counter() - began)
    with torch.no_grad():
        probability = load_classifier("digits").logits(samples.x).softmax(1)
    asked = probability[:, digit]
    metrics["class"] = digit
    metrics["class_accuracy"] = float((probability.argmax(1) == digit).float().mean())
    metrics["class_probability"] = float(asked.mean())
    columns = tuple(
        Column(f"sample {i + 1}", x, f"p({digit}) = {p:.2f}")
        for i, (x, p) in enumerate(zip(samples.x, asked.tolist(), strict=True))
    )
    return metrics, Row(f"digit {digit}", columns)


@dataclass(frozen=True)
class _Problem:
    """A measured picture, and the classical answer to it."""

    label: str
    truth: Tensor  # (1, C, H, W)
    model: LinearGaussian
    y: Tensor
    answer: Tensor
    answer_name: str
    shown: Column
    window: tuple[float, float] = (0.0, 1.0)
    data_range: float | None = 1.0


def _photograph(name: str, top: int, left: int, side: int, size: int = 128) -> Tensor:
    """A square of a scikit-image picture, brought to size x size, (1, 3, size, size) in [0, 1]."""
    import skimage.data

    whole = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)[None].float() / 255
    square = whole[..., top : top + side, left : left + side]
    small = torch.nn.functional.interpolate(
        square, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return small.clamp(0, 1)  # averages of values in [0, 1]: only rounding is cut


def _deblur(generator: torch.Generator) -> _Problem:
    truth = _photograph("astronaut", 0, 96, 256)
    operator = Blur(gaussian_kernel(BLUR_SIGMA))
    model = LinearGaussian(operator, BLUR_NOISE)
    y = model.simulate(truth, generator)
    answer = classical.wiener(operator, y, BLUR_NOISE)
    shown = Column("measurement", y[0], f"{classical.psnr(truth, y, 1.0):.1f} dB")
    return _Problem("deblurring", truth, model, y, answer, "Wiener filter", shown)


def _inpaint(generator: torch.Generator) -> _Problem:
    truth = _photograph("chelsea", 0, 80, 300)
    mask = random_mask(tuple(truth.shape[-2:]), KEEP, generator)
    model = LinearGaussian(Inpainting(mask), INPAINT_NOISE)
    y = model.simulate(truth, generator)
    answer = classical.fill(mask, y, INPAINT_NOISE)
    shown = Column("measurement", y[0], f"{KEEP:.0%} of the pixels, noisy")
    return _Problem("inpainting", truth, model, y, answer, "biharmonic + NLM", shown)


def _ct(generator: torch.Generator) -> _Problem:
    from pydicom.data import get_testdata_file

    image = read_image(str(get_testdata_file("CT_small.dcm", download=False)))
    assert image.spacing is not None
    truth = image.data[None]
    angles = [180 * i / ANGLES for i in range(ANGLES)]
    operator = Tomography(tuple(truth.shape[-2:]), angles, pixel_spacing=image.spacing)
    # Noise arises in the line integrals of attenuation: a share of their mean.
    attenuation = hounsfield_to_attenuation(truth)
    sigma = CT_NOISE * float(operator.apply(attenuation).mean())
    sinogram = LinearGaussian(operator, sigma).simulate(attenuation, generator)
    y, factor = hounsfield_sinogram(operator, sinogram)
    model = LinearGaussian(operator, factor * sigma)
    answer, filter_name = classical.back_project(operator, y, truth)
    shown = Column("measurement", sinogram[0], f"{ANGLES} angles, {CT_NOISE:.0%} noise", "sinogram")
    return _Problem(
        "CT", truth, model, y, answer, f"FBP, {filter_name}", shown, CT_WINDOW, data_range=None
    )


_PROBLEMS = {"deblur": _deblur, "inpaint": _inpaint, "ct": _ct}


def _reconstruction(
    job: Job, prior: Prior, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], Row]:
    problem = _PROBLEMS[job.name](torch.Generator().manual_seed(seed))
    posterior = condition(prior, problem.model, problem.y)
    began = time.perf_counter()
    samples = _draw(posterior, job, seed, progress)
    metrics = _metrics(job, samples, time.perf_counter() - began)
    truth, span = problem.truth[0], problem.data_range
    for name, estimate in (("classical", problem.answer[0]), ("mean", samples.mean)):
        metrics[f"psnr_{name}"] = classical.psnr(truth, estimate, span)
        metrics[f"ssim_{name}"] = classical.ssim(truth, estimate, span)
    metrics["residual_sigma"] = math.sqrt(samples.diagnostics["reduced_chi2"])
    metrics["coverage90"] = coverage(samples, truth)
    columns = (
        Column("truth", truth),
        problem.shown,
        Column(problem.answer_name, problem.answer[0], f"{metrics['psnr_classical']:.1f} dB"),
        Column("posterior mean", samples.mean, f"{metrics['psnr_mean']:.1f} dB"),
        Column("standard deviation", samples.std, "", "std"),
        *(
            Column(f"sample {i + 1}", x, f"{classical.psnr(truth, x, span):.1f} dB")
            for i, x in enumerate(samples.x[:3])
        ),
    )
    return metrics, Row(problem.label, columns, problem.window)
