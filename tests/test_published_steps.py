"""Single steps and short runs against the published recursions, written out or of diffusers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from problems import DOUBLE
from test_samplers import gaussian

import priors
from inverse.randomness import NoiseStream
from inverse.samplers import EulerMaruyama, Heun, Multistep, StochasticHeun


@pytest.mark.parametrize("kind", [priors.VP, priors.SubVP])
@pytest.mark.parametrize("unit", [1.0, 0.5])
def test_euler_maruyama_on_the_sdes_of_song_et_al(kind, unit):
    """du = (-beta u / 2 - g^2 score) dt + g dw with beta and g written out."""
    schedule, prior = kind(0.1, 20.0), priors.Gaussian(torch.full((4,), 0.3).double(), 0.4)
    noise = NoiseStream(0, range(3), (4,), DOUBLE)
    levels = [7.0, 4.0, 1.5]
    x = prior.initial(noise.normal(0), 7.0)
    found = EulerMaruyama(levels, schedule, unit)(prior, start=x, noise=noise)
    times = [float(schedule.t(sigma / unit)) for sigma in levels]
    for k in range(2):
        t, h = times[k], times[k] - times[k + 1]
        beta = 0.1 + 19.9 * t
        whole = 0.1 * t + 19.9 * t**2 / 2
        alpha = math.exp(-whole / 2)
        g2 = beta if kind is priors.VP else beta * (1 - math.exp(-2 * whole))
        u = alpha * x / unit
        score = prior.score(x, levels[k]) * unit / alpha
        u = u + h * (beta * u / 2 + g2 * score) + math.sqrt(g2 * h) * noise.normal(k + 1)
        x = unit * u / float(schedule.alpha(times[k + 1]))
    assert torch.allclose(found, x, rtol=1e-10, atol=1e-10)


def test_the_mean_of_a_schedule_is_not_that_of_the_levels():
    """So that a schedule given is a schedule used."""
    prior = gaussian(2)
    x = torch.ones(1, 2, dtype=DOUBLE)
    kinds = (priors.VE, priors.VP, priors.SubVP, priors.Cosine, priors.Flow)
    ends = [
        EulerMaruyama([2.0, 1.0], schedule)(prior, start=x, seed=0)
        for schedule in (None, *(kind() for kind in kinds))
    ]
    assert len({round(float(x[0, 0]), 9) for x in ends}) == len(ends)


def test_rates_of_a_schedule_by_central_differences():
    t, d = torch.linspace(0.05, 0.95, 19, dtype=DOUBLE), 1e-6
    for s in (priors.VE(), priors.VP(), priors.SubVP(), priors.Cosine(), priors.Flow()):
        drift = (s.alpha(t + d).log() - s.alpha(t - d).log()) / (2 * d)
        growth = s.alpha(t) ** 2 * (s.sigma(t + d) ** 2 - s.sigma(t - d) ** 2) / (2 * d)
        torch.testing.assert_close(s.drift(t), drift, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(s.diffusion(t), growth, rtol=1e-6, atol=1e-8)
        assert s.drift(0.5).shape == ()
        assert not s.diffusion(0.5).requires_grad


def test_churn_is_algorithm_2_of_karras_et_al():
    prior, noise = gaussian(3), NoiseStream(0, range(2), (3,), DOUBLE)
    levels = [9.0, 5.0, 2.0, 0.5, 0.02, 0.0]
    x = prior.initial(noise.normal(0), 9.0)
    found = StochasticHeun(levels, 1.5, (0.1, 6.0), 1.01)(prior, start=x, noise=noise)
    for k in range(5):
        t, t_next = levels[k], levels[k + 1]
        gamma = min(1.5 / 5, math.sqrt(2) - 1) if 0.1 <= t <= 6.0 else 0.0
        t_hat = t + gamma * t
        x = x + math.sqrt(t_hat**2 - t**2) * 1.01 * noise.normal(k + 1)
        d = (x - prior.denoise(x, t_hat)) / t_hat
        x_next = x + (t_next - t_hat) * d
        if t_next != 0:
            d_next = (x_next - prior.denoise(x_next, t_next)) / t_next
            x_next = x + (t_next - t_hat) * (d / 2 + d_next / 2)
        x = x_next
    assert torch.allclose(found, x, rtol=0, atol=1e-12)


def test_churn_never_leaves_the_levels_and_none_is_heun():
    seen = []

    class Watched(priors.Prior):
        event_shape, sigma_range = (1,), (0.1, 3.0)

        def _denoise(self, x, sigma):
            seen.append(float(sigma.max()))
            return x / (1 + sigma**2)

    levels = [3.0, 2.9, 1.0, 0.0]
    StochasticHeun(levels, churn=100.0)(Watched(), n=1)
    assert max(seen) == 3.0
    assert seen[2] == 3.0, "from 2.9 up to the first level"
    prior = gaussian(3)
    assert torch.equal(StochasticHeun(levels, churn=0.0)(prior, n=2), Heun(levels)(prior, n=2))
    for options, message in (
        ({"churn": -1.0}, "churn must be"),
        ({"churn": math.nan}, "churn must be"),
        ({"churn_range": (1.0, 1.0)}, "churn_range must be"),
        ({"noise_scale": 0.0}, "noise_scale must be"),
    ):
        with pytest.raises(ValueError, match=message):
            StochasticHeun(levels, **options)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_multistep_is_diffusers_dpm_solver_of_second_order(algorithm):
    diffusers = pytest.importorskip("diffusers")
    prior = gaussian(4, variance=0.5)
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type=algorithm, solver_order=2)
    scheduler.set_timesteps(20)
    levels = scheduler.sigmas.double()
    noise = NoiseStream(7, range(3), (4,), DOUBLE)
    x = noise.normal(0) * levels[0]
    eta = float(algorithm.startswith("sde"))
    ours = Multistep(levels, eta=eta)(prior, start=x, noise=noise)
    x_t = x / (1 + levels[0] ** 2).sqrt()
    for k, t in enumerate(scheduler.timesteps):
        sigma = float(levels[k])
        alpha = 1 / math.sqrt(1 + sigma**2)
        x0 = prior.denoise(x_t / alpha, sigma)
        eps = (x_t - alpha * x0) / (alpha * sigma)
        x_t = scheduler.step(eps, t, x_t, variance_noise=noise.normal(k + 1))[0]
    assert torch.allclose(ours, x_t, rtol=1e-4, atol=1e-5)


def test_order_three_is_exact_for_a_denoiser_quadratic_in_log_sigma():
    """D depends on sigma alone, so the images are the polynomial that the step extrapolates."""

    class Quadratic(priors.Prior):
        event_shape, sigma_range = (1,), (0.1, 9.0)

        def _denoise(self, x, sigma):
            u = sigma.log()
            return (0.3 - 0.7 * u + 0.4 * u**2).expand(x.shape)

    levels = priors.karras(9, (0.1, 9.0))[:-1]
    run = Multistep(levels, eta=0.0, order=3)
    states = []
    run(Quadratic(), n=1, seed=0, dtype=DOUBLE, callback=states.append)

    # dx/du = x - D has the solution C e^u + 0.4 u^2 + 0.1 u + 0.4, by insertion.
    def particular(sigma):
        u = math.log(sigma)
        return 0.4 * u**2 + 0.1 * u + 0.4

    for before, after in pairwise(states[1:]):
        constant = (float(before.x) - particular(before.sigma)) / before.sigma
        expected = constant * after.sigma + particular(after.sigma)
        assert float(after.x) == pytest.approx(expected, abs=1e-12)


def test_orders_that_are_not_there_are_refused():
    for order in (1, 4, 2.5, "2"):
        with pytest.raises(ValueError, match="order must be 2 or 3"):
            Multistep([1.0, 0.0], order=order)
