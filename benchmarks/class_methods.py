"""How digits of a class are drawn: each approximation of p_sigma(class | x) under its sampler."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from class_metrics import CLASSES
from torch import Tensor

import inverse
from forward_models import load_classifier
from inverse.likelihoods import (
    Exact,
    Likelihood,
    MonteCarloLift,
    PlugIn,
    ReverseRunLift,
    Scaled,
    TrainingFree,
)
from inverse.likelihoods.loss_guidance import Weight
from inverse.posterior import Model
from inverse.samplers import Ancestral, Multistep, Sampler
from priors import Prior, geometric

ROUND = 4
"""Samples of a class that are drawn, and kept, together."""

SCALES = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Drawn:
    """A round: images (10 ROUND, 1, 28, 28), class after class, and what one of them cost."""

    x: Tensor
    network_calls: int
    products: int
    seconds: float


Draw = Callable[[Prior, float, int, int], Drawn]
"""(prior, scale, levels, seed) -> a round."""


@dataclass(frozen=True)
class Method:
    """One row for each scale: how a round is drawn, guided by which classifier."""

    name: str
    classifier: str
    scales: tuple[float, ...]
    draw: Draw


Lift = Callable[[Model, Tensor, Prior, float], Likelihood]
"""(classifier, classes, prior, w) -> the likelihood to the power w at every noise level."""

Walk = Callable[[int, Prior], Sampler]
"""(levels, prior) -> a sampler."""


def multistep(levels: int, prior: Prior) -> Sampler:
    return Multistep(geometric(levels, prior.sigma_range))


def few_levels(levels: int, prior: Prior) -> Sampler:
    return Multistep(geometric(levels * 2 // 5, prior.sigma_range))


def old_noise_kept(levels: int, prior: Prior) -> Sampler:
    return Ancestral(geometric(levels, prior.sigma_range), keep_noise=True)


def power(lift: Callable[[Model, Tensor], Likelihood]) -> Lift:
    return lambda m, y, prior, w: Scaled(lift(m, y), w)


def variance(prior: Prior, w: float) -> Weight:
    """w r^2, r^2 = sigma^2 s^2 / (sigma^2 + s^2) the variance of x0 under N(m, s^2 I)."""
    s2 = prior.scale**2
    return lambda sigma: w * sigma.square() * s2 / (sigma.square() + s2)


def monte_carlo(m: Model, y: Tensor, prior: Prior, w: float) -> Likelihood:
    return Scaled(MonteCarloLift(m, y, scale=prior.scale, draws=10), w)


def manifold(m: Model, y: Tensor, prior: Prior, w: float) -> Likelihood:
    return TrainingFree(m, y, mu=variance(prior, w))


def reverse_runs(m: Model, y: Tensor) -> Likelihood:
    return ReverseRunLift(m, y, runs=6, steps=4, batch=80)


def guided(lift: Lift, walk: Walk = multistep, classifier: str = "digits") -> Draw:
    """A likelihood at every noise level under a sampler."""

    def draw(prior: Prior, scale: float, levels: int, seed: int) -> Drawn:
        model, y = load_classifier(classifier), torch.arange(CLASSES)
        posterior = inverse.condition(prior, model, y, lift=lambda m, y: lift(m, y, prior, scale))
        sampler, cost = walk(levels, prior), posterior.cost
        calls = sampler.network_calls or 0
        began = time.process_time()
        samples = inverse.sample(posterior, CLASSES * ROUND, sampler=sampler, seed=seed)
        seconds = (time.process_time() - began) / len(samples.x)
        return Drawn(samples.x, calls * (1 + cost.network_calls), calls * cost.products, seconds)

    return draw


def named(method: str, *options: str, steps: Callable[[int], int] = int) -> Draw:
    """A method of `inverse.sample` as published; its options are what `scale` stands for."""

    def draw(prior: Prior, scale: float, levels: int, seed: int) -> Drawn:
        posterior = inverse.condition(prior, load_classifier("digits"), torch.arange(CLASSES))
        began = time.process_time()
        samples = inverse.sample(
            posterior, CLASSES * ROUND, method=method, steps=steps(levels), seed=seed,
            **dict.fromkeys(options, scale),
        )  # fmt: skip
        seconds = (time.process_time() - began) / len(samples.x)
        spent = samples.diagnostics
        return Drawn(samples.x, spent["network_calls"], spent["jacobian_products"], seconds)

    return draw


def twisted(particles: int) -> Draw:
    """One draw, by weight, of so many particles; every sample has its own."""

    def draw(prior: Prior, scale: float, levels: int, seed: int) -> Drawn:
        y = torch.arange(CLASSES).repeat_interleave(ROUND)
        posterior = inverse.condition(prior, load_classifier("digits"), y)
        began = time.process_time()
        samples = inverse.sample(
            posterior, len(y) * particles, method="tds", steps=levels, seed=seed, batch=80
        )
        seconds = (time.process_time() - began) / len(y)
        weights = samples.weights.reshape(len(y), particles)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        x = samples.x.unflatten(0, weights.shape)[range(len(y)), chosen]
        spent = samples.diagnostics
        calls, products = spent["network_calls"], spent["jacobian_products"]
        return Drawn(x, particles * calls, particles * products, seconds)

    return draw


def unconditional(prior: Prior, scale: float, levels: int, seed: int) -> Drawn:
    """Draws of the prior, twice as many as a round of a method has."""
    began = time.process_time()
    samples = inverse.sample(prior, 2 * CLASSES * ROUND, steps=levels, seed=seed)
    seconds = (time.process_time() - began) / len(samples.x)
    return Drawn(samples.x, samples.diagnostics["network_calls"], 0, seconds)


METHODS = (
    Method("unconditional", "", (1.0,), unconditional),
    Method(
        "noise-conditional", "digits-noisy", SCALES,
        guided(power(Exact), classifier="digits-noisy"),
    ),
    Method("plug-in", "digits", SCALES, guided(power(PlugIn))),
    Method("Monte-Carlo", "digits", (1.0, 4.0), guided(monte_carlo)),
    Method("mean guidance", "digits", SCALES, guided(manifold, old_noise_kept)),
    # As published: at the default of their own scale.
    Method("dps", "digits", (1.0,), named("dps")),
    Method("lgd", "digits", (1.0,), named("lgd")),
    Method("mpgd", "digits", (1.0,), named("mpgd", "c")),
    Method("dsg", "digits", (0.2,), named("dsg", "ratio")),
    Method("freedom", "digits", (1.0,), named("freedom", "rho", steps=lambda n: 10 * n // 22)),
    Method("tfg", "digits", (1.0,), named("tfg", "rho", "mu")),
    Method("TDS, 8 particles", "digits", (1.0,), twisted(8)),
    # 6 runs of 7 calls at each of 20 levels.
    Method("reverse runs", "digits", (1.0,), guided(power(reverse_runs), few_levels)),
)  # fmt: skip
