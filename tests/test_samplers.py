"""The sampler contract: every sampler joins with one line of SAMPLERS."""

from __future__ import annotations

import math

import pytest
import torch

import inverse
import priors
from forward_models import Identity, LinearGaussian
from inverse import checkpoint
from inverse.checkpoint import fingerprint
from inverse.randomness import NoiseStream, check_seed
from inverse.running import Counted
from inverse.samplers import (
    MALA,
    Absorbing,
    AdaptiveODE,
    Ancestral,
    AnnealedLangevin,
    DivergenceError,
    EulerMaruyama,
    Heun,
    Langevin,
    Multistep,
    PredictorCorrector,
    Settling,
    Spherical,
    StochasticHeun,
    TimeTravel,
    named,
)

SAMPLERS = {
    "euler-maruyama": EulerMaruyama,
    "euler-maruyama ve": lambda levels: EulerMaruyama(levels, priors.VE()),
    "euler-maruyama vp": lambda levels: EulerMaruyama(levels, priors.VP()),
    "euler-maruyama sub-vp": lambda levels: EulerMaruyama(levels, priors.SubVP()),
    "euler-maruyama cosine": lambda levels: EulerMaruyama(levels, priors.Cosine()),
    "euler-maruyama flow": lambda levels: EulerMaruyama(levels, priors.Flow(), unit=2.0),
    "ancestral": Ancestral,
    "ancestral eta 0.5": lambda levels: Ancestral(levels, eta=0.5),
    "ancestral, noise kept": lambda levels: Ancestral(levels, keep_noise=True),
    "ddim": lambda levels: Ancestral(levels, eta=0.0),
    "heun": Heun,
    "stochastic heun": lambda levels: StochasticHeun(levels, churn=20.0),
    "stochastic heun in part": lambda levels: StochasticHeun(levels, 5.0, (0.5, 5.0)),
    "multistep": Multistep,
    "multistep eta 0.5": lambda levels: Multistep(levels, eta=0.5),
    "multistep eta 0": lambda levels: Multistep(levels, eta=0.0),
    "multistep order 3": lambda levels: Multistep(levels, eta=0.0, order=3),
    "multistep order 3 eta 1": lambda levels: Multistep(levels, order=3),
    "time travel": lambda levels: TimeTravel(Ancestral(levels)),
    "time travel, long jumps": lambda levels: TimeTravel(Heun(levels), 3, 4, (0.2, 3.0)),
    "time travel, churned": lambda levels: TimeTravel(StochasticHeun(levels, 5.0), 2),
}
# The law of these does not converge as levels are added, or is not linear in the noise: they have
# theirs in tests/test_langevin.py, test_metropolis.py, test_adaptive_ode.py, test_spherical.py.
OTHERS = {
    "langevin": lambda levels: Langevin(float(levels[-2]), 0.1 * float(levels[-2]) ** 2, steps=6),
    "mala": lambda levels: MALA(float(levels[-2]), 0.5 * float(levels[-2]) ** 2, steps=6),
    "annealed": AnnealedLangevin,
    "annealed c 0.3": lambda levels: AnnealedLangevin(levels, 2, relative_step=0.3),
    "predictor-corrector": lambda levels: PredictorCorrector(EulerMaruyama(levels)),
    "ddim, 3 corrections": lambda levels: PredictorCorrector(Ancestral(levels, eta=0.0), 3, 0.1),
    "heun and corrector": lambda levels: PredictorCorrector(Heun(levels), snr=0.05),
    "time travel, corrected": lambda levels: TimeTravel(PredictorCorrector(Heun(levels), 2)),
    "spherical": Spherical,
    "spherical eta 0.5": lambda levels: Spherical(levels, eta=0.5, ratio=0.2),
    "langevin after heun": lambda levels: settling(Heun, levels, Langevin),
    "mala after multistep": lambda levels: settling(Multistep, levels, MALA),
    "absorbing": lambda levels: Absorbing(Ancestral(levels), 0.9, corrections=3),
    "absorbing, multistep": lambda levels: Absorbing(Multistep(levels), 0.9),
    "adaptive": lambda levels: AdaptiveODE((0.9 * float(levels[-2]), float(levels[0])), 1e-5, 1e-6),
}


def settling(walk, levels, kind) -> Settling:
    held = [*torch.as_tensor(levels)[torch.as_tensor(levels) > 0].tolist(), 0.0]
    return Settling(walk(held), kind(held[-2], 0.3 * held[-2] ** 2, 5))


ALL = SAMPLERS | OTHERS
converging_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS.keys())
every_sampler = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())

DOUBLE = torch.float64


def gaussian(*event_shape: int, variance: float = 1.3) -> priors.Gaussian:
    return priors.Gaussian(torch.full(event_shape, 0.7, dtype=DOUBLE), variance)


class Impulses:
    """Noise whose sample k is 1 at step k and 0 elsewhere: a linear sampler's response."""

    def __init__(self, steps: int) -> None:
        self.rows = torch.eye(steps + 1, dtype=DOUBLE)

    def normal(self, step: int) -> torch.Tensor:
        return self.rows[:, step : step + 1]


def moments(make, levels: torch.Tensor, prior: priors.Gaussian) -> tuple[float, float]:
    """Mean and variance of a sampler's law on a 1-D Gaussian prior, without sampling error.

    Every sampler is linear in (start, noise), so unit impulses give its law exactly.
    """
    steps = len(make(levels).path) - 1
    spread = math.sqrt(float(prior.covariance(torch.zeros(1, 1, dtype=DOUBLE), 1e6)[1](
        torch.ones(1, 1, dtype=DOUBLE))) + float(levels[0]) ** 2)  # fmt: skip
    mean = float(prior.mean)
    start = torch.full((steps + 1, 1), mean, dtype=DOUBLE)
    start[0] += spread
    baseline = make(levels)(prior, start=torch.full((1, 1), mean, dtype=DOUBLE), noise=Zeros())
    response = make(levels)(prior, start=start, noise=Impulses(steps)) - baseline
    # Row 0 carries the start, row k the noise of step k; they add up in the variance.
    return float(baseline), float((response**2).sum())


class Zeros:
    def normal(self, step: int) -> torch.Tensor:
        return torch.zeros(1, 1, dtype=DOUBLE)


# A first step of lower order costs nothing where the denoiser hardly moves.
TOP = {"multistep order 3": 100.0}
# Where terms of first and second order nearly cancel.
FINEST = {"euler-maruyama ve": 800}


@pytest.mark.parametrize("name", SAMPLERS)
def test_measured_order_equals_the_declared_one(name):
    """By propagating mean and variance exactly; the order of the law is the weak order."""
    make, prior = SAMPLERS[name], gaussian(1)
    low, finest = 0.1, FINEST.get(name, 160)
    errors = []
    for steps in (finest // 2, finest):
        levels = priors.karras(steps, (low, TOP.get(name, 20.0)))[:-1]
        mean, variance = moments(make, levels, prior)
        errors.append((abs(mean - 0.7), abs(variance - (1.3 + low**2))))
    order = make([1.0, 0.0]).order
    for coarse, fine in zip(*errors, strict=True):
        assert fine < 1e-12 or abs(math.log2(coarse / fine) - order) < 0.1, errors


@converging_sampler
def test_the_law_converges_to_the_posterior_of_a_prior_that_is_one(make):
    """A sampler that ends at 0 has the variance of the prior, up to its discretisation."""
    prior = gaussian(1, variance=0.04)
    coarse = moments(make, priors.geometric(50, (1e-3, 30.0)), prior)[1] / 0.04
    fine = moments(make, priors.geometric(200, (1e-3, 30.0)), prior)[1] / 0.04
    assert abs(fine - 1) < max(abs(coarse - 1), 1e-3)
    assert abs(fine - 1) < (0.06 if make([1.0, 0.0]).order == 1 else 4e-3)


@every_sampler
@pytest.mark.parametrize("event_shape", [(), (5,), (2, 3, 4), (1, 2, 3, 2)], ids=str)
def test_any_event_shape(make, event_shape):
    prior = gaussian(*event_shape)
    x = make(priors.karras(6, prior.sigma_range))(prior, n=3, seed=1)
    assert x.shape == (3, *event_shape)
    assert bool(torch.isfinite(x).all())


@every_sampler
def test_a_sample_depends_on_seed_and_index_only(make):
    prior = priors.Mixture(
        torch.tensor([[-2.0, 0.0, 1.0], [2.0, 1.0, 0.0]], dtype=DOUBLE),
        0.3,
        torch.tensor([0.4, 0.6], dtype=DOUBLE),
    )
    sampler = make(priors.karras(8, prior.sigma_range))
    many = sampler(prior, n=8, seed=3, dtype=DOUBLE)
    few = sampler(prior, n=4, seed=3, dtype=DOUBLE)
    alone = sampler(prior, n=1, seed=3, indices=[5], dtype=DOUBLE)
    close = 1e-12 if not sampler.adaptive else 30 * sampler.rtol
    assert torch.allclose(many[:4], few, rtol=0, atol=close)
    assert torch.allclose(many[5:6], alone, rtol=0, atol=close)
    assert torch.equal(many, sampler(prior, n=8, seed=3, dtype=DOUBLE))
    assert not torch.allclose(many, sampler(prior, n=8, seed=0, dtype=DOUBLE))


@every_sampler
def test_network_calls_are_the_declared_ones(make):
    for levels in (priors.karras(7, (0.01, 10.0)), priors.karras(7, (0.01, 10.0))[:-1]):
        counted = Counted(gaussian(4))
        sampler = make(levels)
        sampler(counted, n=5)
        assert counted.network_calls == sampler.network_calls
        assert counted.jacobian_products == 0


@every_sampler
def test_going_on_from_any_step_gives_the_same_samples(make):
    prior = gaussian(6)
    sampler = make(priors.karras(6, (0.01, 10.0)))
    states = []
    whole = sampler(prior, n=2, seed=4, dtype=DOUBLE, callback=states.append)
    for state in states[:-1]:
        rest = sampler(prior, seed=4, start=state.x, first_step=state.index, history=state.history)
        assert torch.equal(rest, whole)
    steps = len(sampler.path) - 1
    assert [s.index for s in states] == list(range(1, steps + 1))
    assert [s.sigma for s in states] == sampler.path[1:].tolist()
    assert states[0].total == steps


@every_sampler
def test_the_global_random_state_is_untouched(make):
    state = torch.get_rng_state()
    make([1.0, 0.5, 0.0])(gaussian(3), n=2, seed=1)
    assert torch.equal(state, torch.get_rng_state())


@converging_sampler
@pytest.mark.parametrize(
    "levels", [[1.0], [1.0, 1.0], [0.5, 1.0], [1.0, -0.1], [float("nan"), 0.0], [[1.0, 0.0]]]
)
def test_bad_levels_are_refused(make, levels):
    with pytest.raises(ValueError, match="levels must"):
        make(levels)


class Broken(priors.Prior):
    """NaN for the second sample below level 0.6."""

    event_shape, sigma_range = (2,), (0.01, 1.0)

    def _denoise(self, x, sigma):
        second = (torch.arange(x.shape[0]) == 1)[:, None]
        return torch.where(second & (sigma < 0.6), float("nan"), 0.0).expand(x.shape)


@every_sampler
def test_divergence_stops_the_run_and_names_the_sample(make):
    with pytest.raises(DivergenceError, match=r"samples \[1\] of the batch"):
        make([1.0, 0.5, 0.2, 0.1])(Broken(), n=3)


def test_divergence_names_step_and_level():
    with pytest.raises(DivergenceError, match=r"step 2/3, sigma = 0.2, samples \[1\]"):
        Ancestral([1.0, 0.5, 0.2, 0.1])(Broken(), n=3)


def test_divergence_counts_many_samples_and_advises_what_can_be_changed():
    class Nowhere(priors.Prior):
        event_shape, sigma_range = (2,), (0.01, 1.0)

        def _denoise(self, x, sigma):
            return x * math.nan

    prior = Nowhere()
    with pytest.raises(DivergenceError) as told:
        Ancestral([1.0, 0.5])(prior, n=50)
    assert "samples [0, 1, 2, 3, 4, 5, 6, 7] and 42 more of the batch" in str(told.value)
    assert "measurement" not in str(told.value)
    model = LinearGaussian(Identity(), 0.1)
    posterior = inverse.condition(prior, model, torch.zeros(1, 2))
    with pytest.raises(DivergenceError, match="a larger measurement sigma"):
        Ancestral([1.0, 0.5])(posterior, n=2)


@pytest.mark.parametrize("levels", ["karras", 3, None, object()])
def test_levels_of_another_kind_are_refused(levels):
    with pytest.raises((TypeError, ValueError), match="levels must be a list"):
        Heun(levels)


@every_sampler
def test_a_checkpointed_run_resumes_bit_for_bit(make, tmp_path, monkeypatch):
    """Killed after any step, from what the front door wrote to disk."""
    monkeypatch.setattr(checkpoint, "PERIOD", 0.0)
    prior = gaussian(6)
    sampler = make(priors.karras(3, (0.01, 10.0)))
    options = {"n": 4, "seed": 4, "dtype": DOUBLE, "sampler": sampler, "batch": 3}
    whole = inverse.sample(prior, **options)
    steps = len(sampler.path) - 1

    for stop in {1, steps // 2, steps + 1}:
        folder = tmp_path / str(stop)

        def kill(step, stop=stop):
            if step.index == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            inverse.sample(prior, **options, checkpoint=folder, callback=kill)
        assert torch.equal(inverse.sample(prior, **options, checkpoint=folder).x, whole.x)


@every_sampler
def test_settings_tell_samplers_apart(make):
    """So that a checkpoint of one is not continued by another."""
    keys = [fingerprint(other([2.0, 1.0, 0.5]).settings()) for other in ALL.values()]
    assert keys.count(fingerprint(make([2.0, 1.0, 0.5]).settings())) == 1
    one_level = make in (ALL["langevin"], ALL["mala"], ALL["adaptive"])
    assert fingerprint(make([2.0, 1.0, 0.4]).settings()) not in keys or one_level


def test_ancestral_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="not both"):
        Ancestral([1.0, 0.0], eta=1.0, zeta=0.5)
    with pytest.raises(ValueError, match="eta must lie"):
        Ancestral([1.0, 0.0], eta=1.5)
    with pytest.raises(ValueError, match="zeta must lie"):
        Ancestral([1.0, 0.0], zeta=-0.1)


def test_ancestral_is_diffusers_ddpm_and_ddim():
    """Step for step the published recursions, in the schedulers' own coordinates."""
    diffusers = pytest.importorskip("diffusers")
    prior = gaussian(4, variance=0.5)
    for eta in (0.0, 1.0):
        scheduler = diffusers.DDIMScheduler(
            clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading"
        )
        scheduler.set_timesteps(20)
        abar = scheduler.alphas_cumprod.double()
        sigmas = ((1 - abar) / abar).sqrt()
        levels = [float(sigmas[t]) for t in scheduler.timesteps] + [0.0]
        noise = NoiseStream(7, range(3), (4,), DOUBLE)
        x = noise.normal(0) * levels[0]
        ours = Ancestral(levels, eta=eta)(prior, start=x, noise=noise)
        x_t = x * abar[scheduler.timesteps[0]].sqrt()
        for k, t in enumerate(scheduler.timesteps):
            alpha = abar[t].sqrt()
            x0 = prior.denoise(x_t / alpha, float(sigmas[t]))
            eps = (x_t - alpha * x0) / (1 - abar[t]).sqrt()
            x_t = scheduler.step(eps, t, x_t, eta=eta, variance_noise=noise.normal(k + 1))[0]
        assert torch.allclose(ours, x_t, atol=1e-5)


def test_noise_is_standard_normal_and_depends_on_index_step_and_seed():
    stream = NoiseStream(5, range(400), (3,))
    draws = torch.stack([stream.normal(k) for k in range(500)])  # crosses a block of steps
    assert draws.mean().abs() < 5 / math.sqrt(draws.numel())
    assert (draws.var() - 1).abs() < 5 * math.sqrt(2 / draws.numel())
    flat = draws.permute(1, 0, 2).reshape(400, -1)
    correlation = torch.corrcoef(flat) - torch.eye(400)
    assert correlation.abs().max() < 6 / math.sqrt(flat.shape[1])
    assert torch.equal(NoiseStream(5, [7], (3,)).normal(450), draws[450, 7:8])
    assert not torch.equal(NoiseStream(6, [7], (3,)).normal(450), draws[450, 7:8])
    wide = NoiseStream(5, [7], (3,), DOUBLE).normal(450)
    assert torch.equal(wide, draws[450, 7:8].double())


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", 2**63])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed must be"):
        check_seed(seed)


def test_seed_zero_is_a_seed_and_none_is_not():
    assert check_seed(0) == 0
    assert check_seed(None) != check_seed(None)


@pytest.mark.parametrize("name", ["langevin", "mala"])
def test_langevin_steps_by_name_start_where_a_walk_arrives(name):
    """Two narrow modes far apart: the moment-matched start lies between them, at neither."""
    means = torch.tensor([[-3.0], [3.0]], dtype=DOUBLE)
    prior = priors.Mixture(means, 0.01, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    x = named(name, prior, 40)(prior, n=2000, seed=0, dtype=DOUBLE)[:, 0]
    share = float((x > 0).double().mean())
    assert abs(share - 0.7) < 5 * math.sqrt(0.21 / 2000)
    apart = x - 3 * x.sign()
    assert float(apart.abs().max()) < 0.6
    assert float(apart.var()) == pytest.approx(0.01, rel=0.15)


def test_settling_refuses_parts_that_do_not_meet():
    with pytest.raises(ValueError, match=r"levels \[0.5, 0.0\] and steps at 0.4"):
        Settling(Heun([1.0, 0.5, 0.0]), MALA(0.4, 0.1, 2))
    with pytest.raises(ValueError, match="must end at 0"):
        Settling(Heun([1.0, 0.5]), MALA(1.0, 0.1, 2))
    with pytest.raises(ValueError, match="AnnealedLangevin does not take one step"):
        Settling(AnnealedLangevin([1.0, 0.5, 0.0]), MALA(0.5, 0.1, 2))
    with pytest.raises(TypeError, match="steps must be Langevin or MALA"):
        Settling(Heun([1.0, 0.5, 0.0]), Heun([1.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.complex64, torch.bool])
def test_a_fingerprint_tells_tensors_of_every_dtype_apart(dtype):
    a, b = torch.eye(2).to(dtype), torch.ones(2, 2).to(dtype)
    assert fingerprint(a) == fingerprint(a.clone())
    assert len({fingerprint(t) for t in (a, b, a[:1], a.flatten())}) == 4
    assert fingerprint(b[0, 0]) != fingerprint(a[0, 1])
    if dtype.is_complex:
        assert fingerprint(1j * b) != fingerprint((1j * b).conj())
