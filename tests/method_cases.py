"""Small posteriors that every named method is put to: the first of them that it can sample.

A method joins by being registered; nothing is added here.
"""

from __future__ import annotations

from functools import cache

import torch
from problems import DOUBLE, Component, problem

import inverse
import inverse.recipes
import priors
from forward_models import ForwardModel, Gaussian, LinearGaussian, from_simulator
from inverse.posterior import Posterior


class Opaque(priors.Prior):
    """A prior known through its denoiser alone, as a network is."""

    def __init__(self, prior: priors.Prior) -> None:
        self.inner = prior
        self.event_shape, self.sigma_range = prior.event_shape, prior.sigma_range
        self.scale = prior.scale

    def _denoise(self, x, sigma):
        return self.inner.denoise(x, sigma.flatten())


class Wave(ForwardModel):
    """y = sin(x) + noise, evaluated and never differentiated."""

    event_shape = measurement_shape = (6,)
    differentiable = False

    def log_likelihood(self, y, x):
        normal = torch.distributions.Normal(x.detach().sin(), 0.3)
        return normal.log_prob(y).sum(1)

    def simulate(self, x, generator=None):
        return x.sin() + 0.3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


class Bent:
    """An autoencoder of latents (4,) and images (6,): x = 2 sinh(Q z / 2), Q^T Q = I."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(4)
        self.Q = torch.linalg.qr(torch.randn(6, 4, generator=g, dtype=DOUBLE)).Q

    def decode(self, z):
        return 2 * torch.sinh(z @ self.Q.T.to(z) / 2)

    def encode(self, x):
        return 2 * torch.asinh(x / 2) @ self.Q.to(x)


def linear(prior: priors.Prior | None = None) -> Posterior:
    known, model, y, _ = problem()
    return inverse.condition(known if prior is None else prior, model, y)


def opaque() -> Posterior:
    known, model, y, _ = problem()
    return inverse.condition(Opaque(known), model, y)


def image() -> Posterior:
    """A blurred picture of two channels, half of it seen, so that nothing leans on a flat event."""
    from forward_models import Blur, Inpainting, gaussian_kernel

    prior = Opaque(priors.Gaussian(torch.zeros(2, 6, 6, dtype=DOUBLE), 0.5))
    g = torch.Generator().manual_seed(0)
    half = torch.arange(6).expand(6, 6) < 3
    model = LinearGaussian(Inpainting(half) @ Blur(gaussian_kernel(1.0, 3), "circular"), 0.3)
    y = torch.randn(1, 2, 6, 6, generator=g, dtype=DOUBLE)
    return inverse.condition(prior, model, y)


def latent() -> Posterior:
    """A linear measurement of decoded images."""
    known, _, _, _ = problem(size=4)
    _, model, y, _ = problem()
    return inverse.condition(priors.LatentPrior(Opaque(known), Bent()), model, y)


def black_box() -> Posterior:
    known, _, _, _ = problem()
    return inverse.condition(Opaque(known), Wave(), torch.full((6,), 0.4, dtype=DOUBLE))


def curved() -> Posterior:
    """An observation that is not linear, with independent noise."""
    known, _, _, _ = problem()
    model = from_simulator(torch.tanh, Gaussian(0.3), (6,))
    return inverse.condition(Opaque(known), model, torch.full((6,), 0.4, dtype=DOUBLE))


def classes() -> Posterior:
    means = torch.tensor([[-3.0, 0.0], [3.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    return inverse.condition(Opaque(mixture), Component(mixture), 0)


@cache
def _learned():
    """A few steps: what is asked of a method does not depend on how good its network is."""
    known, _, _, _ = problem()
    return inverse.learn(known, Wave(), steps=5, batch=16, widths=(16,))


def learned() -> Posterior:
    known, _, _, _ = problem()
    y = torch.full((6,), 0.4, dtype=DOUBLE)
    return inverse.condition(Opaque(known), Wave(), y, lift=_learned())


POSTERIORS = {
    "linear": linear,
    "opaque": opaque,
    "image": image,
    "curved": curved,
    "latent": latent,
    "black box": black_box,
    "classes": classes,
    "learned": learned,
}


def able(name: str) -> list[str]:
    """The posteriors that the method can sample."""
    method = inverse.recipes.find(name)
    return [key for key, make in POSTERIORS.items() if method.refusal(make()) is None]
