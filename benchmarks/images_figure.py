"""One picture for each family of methods: what each makes of a few problems.

    python benchmarks/images_figure.py [--families splitting ...]

Rows are methods, columns problems of images_problems.py (small setting); each tile is one sample,
with the PSNR of it, at 100 network calls for digits and 30 for photographs. On top the truth and
what was measured. Written to benchmarks/results/images_FAMILY.png.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib
import torch
from images_problems import ImageProblem, prior_of, problem
from torch import Tensor

import inverse
from forward_models import LinearGaussian
from inverse.classical import psnr
from inverse.recipes import find

SHOWN = (
    "digits: inpainting, random", "digits: super-resolution x4", "photographs: inpainting, random",
    "photographs: deblurring, Gaussian", "photographs: super-resolution x4",
)  # fmt: skip
FOLDER = Path(__file__).parent / "results"
PARTICLES = 8


def tile(problem: ImageProblem, name: str, budget: int) -> Tensor | str:
    posterior = inverse.condition(prior_of(problem.prior), problem.model, problem.y)
    method = find(name)
    if method.refusal(posterior) is not None:
        return "cannot"
    steps = method.steps_within(posterior, budget)
    if steps is None:
        return "too few calls"
    n = PARTICLES if method.family == "particles" else 1
    try:
        samples = inverse.sample(posterior, n, method=name, steps=steps, seed=0)
    except (ArithmeticError, ValueError, RuntimeError) as error:
        return type(error).__name__
    weights = samples.weights
    return samples.x[0 if weights is None else int(weights.argmax())]


def shown(image: Tensor) -> Tensor:
    return image.clamp(0, 1).permute(1, 2, 0).squeeze(-1)


def measured(problem: ImageProblem) -> Tensor:
    """The measurement as a picture of the truth's shape."""
    model = problem.model
    assert isinstance(model, LinearGaussian)
    if problem.y.shape == problem.truth.shape:
        return problem.y[0]
    return torch.nn.functional.interpolate(problem.y, problem.truth.shape[-2:])[0]


def draw(family: str, names: list[str], problems: list[ImageProblem], budgets: list[int]) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = ["truth", "measured", *names]
    figure, axes = plt.subplots(
        len(rows), len(problems), figsize=(1.5 * len(problems) + 1.2, 1.55 * len(rows)),
        squeeze=False,
    )  # fmt: skip
    for line, name in zip(axes, rows, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axis, posed, budget in zip(line, problems, budgets, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            truth = posed.truth[0]
            if name == "truth":
                axis.set_title(posed.name, fontsize=7)
                image: Tensor | str = truth
            elif name == "measured":
                image = measured(posed)
            else:
                image = tile(posed, name, budget)
            if isinstance(image, str):
                axis.text(0.5, 0.5, image, ha="center", va="center", fontsize=7)
                axis.set_xlim(0, 1)
                continue
            axis.imshow(shown(image), cmap="gray", vmin=0, vmax=1)
            if name not in ("truth", "measured"):
                axis.set_xlabel(f"{psnr(truth, image, 1.0):.1f} dB", fontsize=7, labelpad=1)
    figure.tight_layout(pad=0.4)
    figure.savefig(FOLDER / f"images_{family}.png", dpi=90)
    plt.close(figure)


def main() -> None:
    families = sorted({m.family for m in inverse.methods()} - {"exact"})
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="+", choices=families, default=families)
    options = parser.parse_args()
    torch.set_num_threads(1)
    problems = [problem(label, 0) for label in SHOWN]
    budgets = [100 if label.startswith("digits") else 30 for label in SHOWN]
    posteriors = [inverse.condition(prior_of(p.prior), p.model, p.y) for p in problems]
    for family in options.families:
        names = [
            m.name for m in inverse.methods()
            if m.family == family and any(m.refusal(p) is None for p in posteriors)
        ]  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draw(family, names, problems, budgets)
        print(family, len(names), flush=True)


if __name__ == "__main__":
    main()
