"""Learned guidance: a network trained for one forward model, over a frozen prior."""

from __future__ import annotations

from ..likelihoods import LearnedLift
from ..posterior import Posterior
from ..samplers import Ancestral
from .lifts import vp_levels
from .recipe import Method, Recipe


def _deft(posterior: Posterior, steps: int, *, eta: float = 0.0) -> Recipe:
    return Recipe(posterior, Ancestral(vp_levels(posterior, steps), eta=eta))


def _learned(posterior: Posterior) -> str | None:
    if isinstance(posterior.lift, LearnedLift):
        return None
    return (
        "it needs a network trained for the forward model: learned = inverse.learn(prior, model), "
        "then inverse.condition(prior, model, y, lift=learned)"
    )


LEARNED = Method(
    name="deft",
    family="guidance",
    asks="black box",
    needs="a posterior under a lift of inverse.learn, trained on simulated pairs of its forward "
    "model; better with its gradient, which black boxes lack",
    jacobian=False,
    cost="1 network call a step, and one of a small network",
    exact_when="the small network is: E[x0 | x, y] is the minimum of its loss",
    paper="Denker et al. 2024, DEFT: Efficient Fine-Tuning of Diffusion Models by Learning the "
    "Generalised h-transform, https://arxiv.org/abs/2406.01781",
    steps=100,
    applies=_learned,
    build=_deft,
)
