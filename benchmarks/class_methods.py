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
from inverse.likelihoods.loss_guidance import Weight, constant
from inverse.posterior import Model
from inverse.samplers import Ancestral, Multistep, Sampler, Spherical, TimeTravel
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

Walk = Callable[[int, Prior, float], Sampler]
"""(network calls, prior, w) -> a sampler."""


def multistep(calls: int, prior: Prior, w: float) -> Sampler:
    return Multistep(geometric(calls, prior.sigma_range))


def at_half(calls: int, prior: Prior, w: float) -> Sampler:
    return Multistep(geometric(calls // 2, prior.sigma_range))


def old_noise_kept(calls: int, prior: Prior, w: float) -> Sampler:
    return Ancestral(geometric(calls, prior.sigma_range), keep_noise=True)


def twice_each(calls: int, prior: Prior, w: float) -> Sampler:
    return TimeTravel(Ancestral(geometric(calls // 2, prior.sigma_range)), repeats=2)


def spherical(calls: int, prior: Prior, w: float) -> Sampler:
    return Spherical(geometric(calls, prior.sigma_range), ratio=w)


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


def both(m: Model, y: Tensor, prior: Prior, w: float) -> Likelihood:
    """Variance and mean guidance; the draws a tenth of r apart."""
    spread = variance(prior, 0.01)
    return TrainingFree(
        m, y, rho=constant(w), mu=variance(prior, w), spread=lambda s: spread(s).sqrt(),
        iterations=4,
    )  # fmt: skip


def relative(m: Model, y: Tensor, prior: Prior, w: float) -> Likelihood:
    return TrainingFree(m, y, rho=constant(w), relative=True)


def guided(lift: Lift, walk: Walk = multistep, classifier: str = "digits") -> Draw:
    """A likelihood at every noise level under a sampler."""

    def draw(prior: Prior, scale: float, levels: int, seed: int) -> Drawn:
        model, y = load_classifier(classifier), torch.arange(CLASSES)
        posterior = inverse.condition(prior, model, y, lift=lambda m, y: lift(m, y, prior, scale))
        sampler, cost = walk(levels, prior, scale), posterior.cost
        calls = sampler.network_calls or 0
        began = time.process_time()
        samples = inverse.sample(posterior, CLASSES * ROUND, sampler=sampler, seed=seed)
        seconds = (time.process_time() - began) / len(samples.x)
        return Drawn(samples.x, calls * (1 + cost.network_calls), calls * cost.products, seconds)

    return draw


def named(method: str) -> Draw:
    """A method of `inverse.sample`, at w = 1."""

    def draw(prior: Prior, scale: float, levels: int, seed: int) -> Drawn:
        posterior = inverse.condition(prior, load_classifier("digits"), torch.arange(CLASSES))
        began = time.process_time()
        samples = inverse.sample(posterior, CLASSES * ROUND, method=method, steps=levels, seed=seed)
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


def reverse_runs(m: Model, y: Tensor) -> Likelihood:
    return ReverseRunLift(m, y, runs=8, steps=2, batch=80)


METHODS = (
    Method("unconditional", "", (1.0,), unconditional),
    Method(
        "noise-conditional", "digits-noisy", SCALES,
        guided(power(Exact), classifier="digits-noisy"),
    ),
    Method("plug-in", "digits", SCALES, guided(power(PlugIn))),
    Method("dps", "digits", (1.0,), named("dps")),
    Method("Monte-Carlo (LGD)", "digits", SCALES, guided(monte_carlo)),
    Method("MPGD", "digits", SCALES, guided(manifold, old_noise_kept)),
    Method("TFG", "digits", (1.0, 4.0), guided(both)),
    Method("FreeDoM", "digits", (0.05, 0.2), guided(relative, twice_each)),
    # Of the guidance its direction counts alone.
    Method("DSG", "digits", (0.1, 0.2, 0.4), guided(power(PlugIn), spherical)),
    Method("TDS, 8 particles", "digits", (1.0,), twisted(8)),
    Method("reverse runs", "digits", (1.0,), guided(power(reverse_runs), at_half)),
)  # fmt: skip
