"""The training loop: what it converges to, and that it goes on where it stopped."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import priors
from priors.network import SpaceToDepth
from priors.training import (
    Augmentation,
    Checkpoint,
    DenoisingScoreMatching,
    Images,
    LogNormal,
    Optimizer,
    denoising_error,
    train,
    unet,
)


class Pixelwise(nn.Module):
    """F(x, log sigma / 4) for independent pixels: enough for Gaussian data."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU())
        self.slope, self.offset = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x, time):
        h = self.body(torch.stack([time, time**2], 1))
        return self.slope(h)[:, :, None, None] * x + self.offset(h)[:, :, None, None]


def gaussian_images(mean: float = 0.2, std: float = 0.4, n: int = 500) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return mean + std * torch.randn(n, 1, 4, 4, generator=g)


PLAN = Optimizer(learning_rate=5e-3, warmup=20)
LEVELS = LogNormal(-1.2, 1.4, (0.002, 80.0))


def denoising(network, images, batch=64, levels=LEVELS):
    """The loss of one step, EDM parametrised, and the prior that it trains."""
    prior = priors.NetworkPrior(network, "edm", images.event_shape, sigma_data=0.4)
    objective = DenoisingScoreMatching(sigma_data=0.4)

    def loss(generator):
        x0 = images.batch(batch, generator)
        return objective(prior, x0, levels.sample(batch, generator), generator).mean()

    return loss, prior


def test_the_loop_learns_the_exact_denoiser_of_gaussian_data():
    torch.manual_seed(0)
    network = Pixelwise()
    loss, learned = denoising(network, Images(gaussian_images()))
    train(network, loss, 600, optimizer=PLAN)
    exact = priors.Gaussian(torch.full((1, 4, 4), 0.2), 0.16)
    for sigma in (0.1, 0.4, 1.0):
        x = exact.sample(200, generator=torch.Generator().manual_seed(1))
        x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        error = (learned.denoise(x, sigma) - exact.denoise(x, sigma)).square().mean().sqrt()
        spread = exact.denoise(x, sigma).std()
        assert error < 0.1 * spread, (sigma, error, spread)
    truth = gaussian_images(n=400)
    for sigma, error in zip(
        (0.2, 1.0), denoising_error(learned, truth, (0.2, 1.0), seed=5), strict=True
    ):
        best = math.sqrt(0.16 * sigma**2 / (0.16 + sigma**2))
        assert best * 0.97 < error < best * 1.05


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    images = Images(gaussian_images(n=20), Augmentation(flip=True, rotate=True))

    def run(checkpoint=None, callback=None):
        torch.manual_seed(0)
        network = Pixelwise()
        loss, _ = denoising(network, images, 8)
        plan = Optimizer(warmup=2)
        return train(
            network, loss, 12, optimizer=plan, checkpoint=checkpoint, callback=callback
        ).state_dict()

    def stop(step):
        if step.step == 7:
            raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(tmp_path, {"a": 1}, every=3), stop)
    steps = []
    resumed = run(Checkpoint(tmp_path, {"a": 1}, every=3), lambda s: steps.append(s.step))
    assert steps == list(range(7, 13))
    for name, value in resumed.items():
        assert torch.equal(value, whole[name]), name
    with pytest.raises(ValueError, match="a was 1, is 2"):
        run(Checkpoint(tmp_path, {"a": 2}))


def test_a_loss_that_is_not_finite_stops_the_run():
    network = Pixelwise()
    loss, _ = denoising(network, Images(torch.full((4, 1, 4, 4), float("nan"))))
    with pytest.raises(FloatingPointError, match="at step 0"):
        train(network, loss, 2)


def test_views_are_seeded_and_of_the_stated_size():
    pictures = [torch.rand(3, 20, 30), torch.rand(3, 16, 18)]
    images = Images(pictures, Augmentation(8, (0.5, 2.0), rotate=True, channels=True, gain=0.3))
    a = images.batch(6, torch.Generator().manual_seed(1))
    b = images.batch(6, torch.Generator().manual_seed(1))
    assert a.shape == (6, 3, 8, 8)
    assert torch.equal(a, b)
    assert not torch.equal(a, images.batch(6, torch.Generator().manual_seed(2)))
    assert images.event_shape == (3, 8, 8)
    with pytest.raises(ValueError, match="several sizes need a crop"):
        Images(pictures)
    with pytest.raises(ValueError, match="no images"):
        Images([])
    with pytest.raises(ValueError, match=r"shape \(C, H, W\)"):
        Images([torch.rand(4, 4)])


def test_the_network_runs_on_folded_pixels():
    pytest.importorskip("diffusers")
    network = unet((1, 16, 24), widths=(16, 32), patch=2)
    assert isinstance(network, SpaceToDepth)
    out = network(torch.randn(2, 1, 16, 24), torch.zeros(2))
    assert out.shape == (2, 1, 16, 24)
    with pytest.raises(ValueError, match="multiples of 4"):
        unet((1, 18, 24), widths=(16, 32), patch=2)
