"""Classifier-free guidance: the guided score in closed form, and one network call for both."""

from __future__ import annotations

import pytest
import torch
from prior_cases import normal, positive, spd
from torch import nn

from inverse.samplers import Multistep
from priors import (
    VE,
    ClassifierFreeGuidance,
    Conditioned,
    Gaussian,
    NetworkPrior,
    geometric,
)

SCALES = (0.0, 0.5, 1.0, 3.0, -1.0)


def moments(prior, sigma):
    mean, C = prior.moments()
    return mean.flatten(), C + sigma**2 * torch.eye(len(C), dtype=C.dtype)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
def test_the_guided_score_is_that_of_the_product_of_powers(scale, sigma):
    """p_u^(1 - w) p_c^w of Gaussians is Gaussian: its precision and mean are known."""
    c, u = Gaussian(normal(3, seed=1), 0.5 * spd(3)), Gaussian(normal(3, seed=2), spd(3, seed=3))
    (mean_c, C_c), (mean_u, C_u) = moments(c, sigma), moments(u, sigma)
    P_c, P_u = torch.linalg.inv(C_c), torch.linalg.inv(C_u)
    precision = scale * P_c + (1 - scale) * P_u
    mean = torch.linalg.solve(precision, scale * P_c @ mean_c + (1 - scale) * P_u @ mean_u)
    prior = ClassifierFreeGuidance(c, u, scale)
    x = normal(5, 3, seed=4) * (1 + sigma)
    expected = -(x - mean) @ precision
    torch.testing.assert_close(prior.score(x, sigma), expected, rtol=1e-8, atol=1e-9)
    denoised = x + sigma**2 * expected
    torch.testing.assert_close(prior.denoise(x, sigma), denoised, rtol=1e-8, atol=1e-8)
    # Cov is sigma^2 dD/dx = sigma^2 (I - sigma^2 precision).
    v = normal(5, 3, seed=5)
    _, product = prior.covariance(x, sigma)
    found = sigma**2 * (v - sigma**2 * v @ precision)
    torch.testing.assert_close(product(v), found, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("scale", "which"), [(0.0, 1), (1.0, 0)])
def test_at_zero_and_one_it_is_one_of_the_two_and_samples_like_it(scale, which):
    pair = Gaussian(normal(2, seed=1), positive(2)), Gaussian(normal(2, seed=2), spd(2))
    prior = ClassifierFreeGuidance(*pair, scale)
    sampler = Multistep(geometric(20, (0.01, 10.0)))
    found, expected = (sampler(p, 5, seed=0, dtype=torch.float64) for p in (prior, pair[which]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Labelled(nn.Module):
    """A network with classes that counts its calls and the samples in them."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.5, 3.0]]))
        self.calls, self.samples = 0, 0

    def forward(self, x, time, class_labels, scale=None):
        self.calls, self.samples = self.calls + 1, self.samples + len(x)
        factor = 1 if scale is None else scale
        return (x - factor * self.shift[class_labels]).tanh() / (1 + time[:, None])


def labelled(**settings):
    network = Labelled().double()
    base = NetworkPrior(
        network, "epsilon", (2,), schedule=VE(), time=lambda sigma: sigma, **settings
    )
    return network, [
        base.under(Conditioned(network, class_labels=torch.tensor([k]))) for k in range(3)
    ]


def test_one_call_of_a_shared_network():
    network, (null, one, _) = labelled()
    prior = ClassifierFreeGuidance(one, null, 2.5)
    x, levels = normal(4, 2), torch.tensor([0.1, 0.5, 2.0, 9.0]).double()
    expected = null.denoise(x, levels) + 2.5 * (one.denoise(x, levels) - null.denoise(x, levels))
    network.calls = network.samples = 0
    found = prior.denoise(x, levels)
    assert (network.calls, network.samples) == (1, 8)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    v = normal(4, 2, seed=1)
    network.calls = 0
    mean, product = prior.covariance(x, levels)
    assert network.calls == 1
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda z: prior.denoise(z, levels).sum(0), x)
    expected = levels[:, None] ** 2 * torch.einsum("ibj,bi->bj", jacobian, v)
    torch.testing.assert_close(product(v), expected, rtol=1e-10, atol=1e-12)


def test_two_calls_where_the_networks_differ():
    network, (null, one, two) = labelled()
    _, (other_null, *_) = labelled()
    x = normal(4, 2)
    for pair in (
        (one, other_null),
        (one, null.under(lambda x, time: network(x, time, torch.zeros(len(x), dtype=torch.long)))),
        (
            one,
            null.under(
                Conditioned(network, class_labels=torch.tensor([0]), scale=torch.ones(1, 1))
            ),
        ),
    ):
        prior = ClassifierFreeGuidance(*pair, 1.5)
        found = prior.denoise(x, 0.7)
        c, u = (p.denoise(x, 0.7) for p in pair)
        torch.testing.assert_close(found, u + 1.5 * (c - u), rtol=1e-12, atol=1e-12)
    network.calls = 0
    for scale, expected in ((0.0, null), (1.0, two)):
        guided = ClassifierFreeGuidance(two, null, scale)
        torch.testing.assert_close(guided.denoise(x, 0.7), expected.denoise(x, 0.7))
    assert network.calls == 4


def test_bad_arguments_are_named():
    g = Gaussian(torch.zeros(2), 1.0)
    with pytest.raises(TypeError, match=r"conditional must be a priors\.Prior"):
        ClassifierFreeGuidance(lambda x, s: x, g, 2.0)
    with pytest.raises(TypeError, match="scale must be a number"):
        ClassifierFreeGuidance(g, g, "2")
    with pytest.raises(ValueError, match="scale must be finite"):
        ClassifierFreeGuidance(g, g, float("nan"))
    with pytest.raises(ValueError, match=r"event_shape \(2,\) and \(3,\)"):
        ClassifierFreeGuidance(g, Gaussian(torch.zeros(3), 1.0), 2.0)
    _, (null, *_) = labelled(sigma_range=(0.1, 1.0))
    _, (far, *_) = labelled(sigma_range=(2.0, 3.0))
    with pytest.raises(ValueError, match="share no noise levels"):
        ClassifierFreeGuidance(far, null, 2.0)
    with pytest.raises(ValueError, match="batch axis of one"):
        Conditioned(Labelled(), class_labels=torch.tensor([1, 2]))
