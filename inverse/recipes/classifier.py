"""Likelihoods of clean images seen through noise: by a trained classifier, or by reverse runs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from forward_models import ForwardModel, LinearGaussian
from priors import geometric
from priors.prior import event_size
from priors.words import did_you_mean

from ..checks import positive, whole
from ..likelihoods import Likelihood, MonteCarloLift, PlugIn, ReverseRunLift, Scaled
from ..posterior import Posterior
from ..samplers import Ancestral
from . import applies
from .lifts import clean
from .recipe import Method, Recipe

IMAGES = 2**22
"""Values that go through the network together."""


# On a ring in the plane seen by a black box, 100 steps of 8 runs of 8 levels came nearer the exact
# posterior (sliced Wasserstein .06, floor .03) than 50 of 32 x 8 (.15), 25 of 32 x 8 (.27) or 50 of
# 128 x 8 (.20): what few steps lose, more runs do not give back.
def _reverse_runs(posterior: Posterior, steps: int, *, runs: int = 8, levels: int = 8) -> Recipe:
    for name, value in {"runs": runs, "levels": levels}.items():
        whole(value, name, least=2)
    at_once = max(1, IMAGES // event_size(posterior.event_shape))

    def runs_of(model: ForwardModel, y: Tensor) -> Likelihood:
        return ReverseRunLift(model, y, runs=runs, steps=levels, batch=at_once)

    lift = clean(runs_of)
    return Recipe(posterior.lifted(lift), Ancestral(geometric(steps, posterior.sigma_range)))


def _classifier(
    posterior: Posterior, steps: int, *, scale: float = 1.0, through: str = "plug-in"
) -> Recipe:
    ways: dict[str, Callable[[ForwardModel, Tensor], Likelihood]] = {
        "plug-in": PlugIn,
        "monte-carlo": lambda m, y: MonteCarloLift(m, y, scale=posterior.prior.scale),
        "reverse-runs": ReverseRunLift,
    }
    positive(scale, "scale")
    if through not in ways:
        known = f"{', '.join(ways)}{did_you_mean(through, ways)}"
        raise ValueError(f"unknown through={through!r}; known: {known}")
    exact_or_lifted = clean(ways[through])
    lifted = posterior.lifted(lambda model, y: Scaled(exact_or_lifted(model, y), scale))
    return Recipe(lifted, Ancestral(geometric(steps, posterior.sigma_range), eta=1.0))


def _classifies(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        if isinstance(model, LinearGaussian):
            return (
                "LinearGaussian is no classifier, and taking the denoised image for the truth "
                "over-fits its y; choose dps or mmps"
            )
    return applies.differentiable(posterior)


CLASSIFIER = (
    Method(
        name="reverse-runs",
        family="guidance",
        asks="black box",
        needs="any forward model of clean images; it is only evaluated",
        jacobian=False,
        cost="1 + `runs` (2 `levels` - 1) network calls a step: 121 by default",
        exact_when="steps, runs and levels grow",
        paper="Efron 2011, Tweedie's Formula and Selection Bias, "
        "https://doi.org/10.1198/jasa.2011.tm11181",
        steps=100,
        applies=applies.clean,
        build=_reverse_runs,
        deviates="the paper is of the formula, not of a sampler",
    ),
    Method(
        name="classifier",
        family="guidance",
        asks="gradient",
        needs="time-dependent factors, such as noise-conditional classifiers; clean ones go "
        "`through` an approximation",
        jacobian=True,
        cost="1 network call and 1 gradient of the classifier a step; for models of clean images "
        "1 vector-Jacobian product, or the runs' network calls",
        exact_when="all factors are time-dependent and scale = 1",
        paper="Dhariwal and Nichol 2021, Diffusion Models Beat GANs on Image Synthesis, "
        "https://arxiv.org/abs/2105.05233",
        steps=250,
        applies=_classifies,
        build=_classifier,
    ),
)  # fmt: skip
