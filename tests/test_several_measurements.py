"""Measurements of several kinds on one prior, and forward models of kinds yet to come."""

from __future__ import annotations

import pytest
import torch
from operator_cases import normal, rng
from torch import nn

import forward_models as fm
import inverse
import priors
from inverse.running import Counted
from inverse.samplers import Heun


class Upright(nn.Module):
    """Attribute logits of digits, seen at any noise level: ink above, below, left and right."""

    def forward(self, x, level):
        top, left = x[:, :, :14].mean((1, 2, 3)), x[..., :14].mean((1, 2, 3))
        everything = x.mean((1, 2, 3))
        return torch.stack([top, everything - top, left, everything - left], 1)


def test_every_factor_adds_its_gradient_and_the_network_is_called_once():
    prior = Counted(priors.load("digits"))
    truth = torch.rand(1, 1, 28, 28, generator=rng())
    low = fm.LinearGaussian(fm.Downsampling(4), 0.05)
    digit = fm.load_classifier("digits-noisy")
    above = fm.NoisyClassifier(fm.Attribute(Upright(), 0), 2, (1, 28, 28))
    left = fm.NoisyClassifier(fm.Attribute(Upright(), 2), 2, (1, 28, 28))
    noised = fm.NoisedMeasurement(fm.LinearGaussian(fm.Downsampling(2), 0.1), seed=3)
    factors = [
        (low, low.simulate(truth, rng(1))),
        (digit, torch.tensor(7)),
        (above, torch.tensor(1)),
        (left, torch.tensor(0)),
        (noised, noised.model.simulate(truth, rng(2))),
    ]
    posterior = inverse.condition(prior, *factors[0])
    for factor in factors[1:]:
        posterior = posterior.given(*factor)
    x = torch.rand(3, 1, 28, 28, generator=rng(4)) + 0.5 * normal(3, 1, 28, 28).float()
    for sigma in (0.1, 0.5, 3.0):
        before = prior.network_calls
        together = posterior.denoise(x, sigma)
        assert prior.network_calls == before + 1
        x0 = prior.denoise(x, sigma)
        parts = [inverse.condition(prior, *f).denoise(x, sigma) - x0 for f in factors]
        for part in parts:
            assert float(part.abs().max()) > 0
        torch.testing.assert_close(together, x0 + sum(parts), rtol=1e-4, atol=1e-4)
        leaf = x.clone().requires_grad_()
        for (model, y), part in list(zip(factors, parts, strict=True))[1:]:
            (gradient,) = torch.autograd.grad(model.log_likelihood(y, leaf, sigma).sum(), leaf)
            torch.testing.assert_close(part, sigma**2 * gradient, rtol=1e-3, atol=1e-5)
    posterior = inverse.condition(prior, digit, 7).given(above, 1)
    samples = inverse.sample(posterior.given(*factors[0]), n=2, steps=3, seed=0)
    assert samples.x.shape == (2, 1, 28, 28)
    assert samples.diagnostics["network_calls"] == 3
    with pytest.raises(ValueError, match="moves with the noise level"):
        inverse.sample(posterior.given(*factors[-1]), n=1, steps=3)
    with pytest.raises(ValueError, match="Heun cannot sample"):
        inverse.sample(posterior.given(*factors[-1]), n=1, sampler=Heun([10.0, 1.0, 0.0]))


class Embedding(fm.ForwardModel):
    """An image and a text: y is the text's embedding, and log p is their similarity."""

    event_shape, measurement_shape = (1, 4, 4), (8,)

    def __init__(self) -> None:
        self.matrix = normal(16, 8).float()

    def log_likelihood(self, y, x):
        y = self.check_measurement(y)
        z = x.flatten(1) @ self.matrix
        return 5 * torch.cosine_similarity(z, y.expand_as(z), dim=1)

    def simulate(self, x, generator=None):
        raise NotImplementedError


class Tokens(fm.TimeDependent):
    """A text as token indices (L,), and a score of it that depends on the noise level."""

    event_shape = (1, 4, 4)

    def __init__(self) -> None:
        self.table = normal(50, 16).float()

    def check_measurement(self, y):
        if y.dtype != torch.int64:
            raise TypeError(f"y has dtype {y.dtype}, expected token indices in torch.int64")
        return y[None] if y.ndim == 1 else y

    def log_likelihood(self, y, x, sigma):
        text = self.table[self.check_measurement(y)].mean(1)
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1)
        return (x.flatten(1) * text).sum(1) / (1 + level**2)


@pytest.mark.parametrize("method", [None, "dps"])
def test_images_and_texts(method):
    prior = priors.Gaussian(torch.zeros(1, 4, 4), 1.0)
    text, tokens = normal(8, seed=1).float(), torch.tensor([3, 1, 4, 1, 5])
    both = inverse.condition(prior, Embedding(), text).given(Tokens(), tokens)
    samples = inverse.sample(both, n=3, method=method, steps=8, seed=0)
    assert samples.x.shape == (3, 1, 4, 4)
    assert samples.x.dtype == torch.float32
    free = inverse.sample(prior, n=3, steps=8, seed=0).x
    for values in (
        lambda x: Embedding().log_likelihood(text, x),
        lambda x: Tokens().log_likelihood(tokens, x, 0.0),
    ):
        assert float(values(samples.x).mean()) > float(values(free).mean())
    alone = inverse.sample(inverse.condition(prior, Tokens(), tokens), n=3, steps=8, seed=0)
    assert alone.x.shape == (3, 1, 4, 4)
