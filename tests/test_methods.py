"""The contract of every named method: seeds, batches, counts, restarts, refusals."""

from __future__ import annotations

import re

import pytest
import torch
from method_cases import POSTERIORS, able
from problems import problem

import inverse
import priors
from forward_models import Gaussian, LinearGaussian, from_simulator
from inverse.likelihoods import Cost
from inverse.particles import ParticleMethod
from inverse.recipes import find
from inverse.samplers import DivergenceError, Sampler

METHODS = [m.name for m in inverse.methods()]
PAIRS = [(name, key) for name in METHODS for key in able(name)]
WALKING = [(name, key) for name, key in PAIRS if name != "exact" or key == "classes"]
every_pair = pytest.mark.parametrize(("name", "key"), PAIRS)
every_walk = pytest.mark.parametrize(("name", "key"), WALKING)
every_method = pytest.mark.parametrize("name", METHODS)

STEPS = 6


def run(posterior, name: str, **options):
    return inverse.sample(
        posterior, **{"n": 6, "method": name, "steps": STEPS, "seed": 3, **options}
    )


def of_particles(posterior, name: str) -> bool:
    return isinstance(find(name).recipe(posterior, STEPS).sampler, ParticleMethod)


@every_method
def test_there_is_a_posterior_that_it_samples(name):
    assert able(name)


@every_method
def test_its_label_is_whole(name):
    method = find(name)
    assert method.paper.count("https://") == 1
    assert method.cost
    assert method.needs
    assert method.exact_when
    assert method.family in {"exact", "guidance", "splitting", "particles", "variational"}
    assert all(value is not None for value in (method.steps, method.asks))


@every_pair
def test_shapes_dtype_and_finite_values(name, key):
    posterior = POSTERIORS[key]()
    state = torch.get_rng_state()
    samples = run(posterior, name)
    assert torch.equal(state, torch.get_rng_state())
    walked = samples.x if samples.latents is None else samples.latents
    assert walked.shape == (6, *posterior.event_shape)
    assert walked.isfinite().all()
    assert samples.x.isfinite().all()
    assert not samples.x.requires_grad
    assert samples.diagnostics["method"] == name
    if samples.weights is not None:
        assert samples.weights.sum().item() == pytest.approx(1)


@every_pair
def test_samples_follow_the_seed_and_not_the_batch(name, key):
    posterior = POSTERIORS[key]()
    whole = run(posterior, name)
    part = run(posterior, name, batch=4)
    torch.testing.assert_close(part.x, whole.x)
    if of_particles(posterior, name):
        alone = run(posterior, name, batch=1)
        torch.testing.assert_close(alone.x, whole.x)
        torch.testing.assert_close(alone.weights, whole.weights, rtol=1e-6, atol=1e-6)
    else:
        torch.testing.assert_close(run(posterior, name, n=2, batch=1).x, whole.x[:2])
    assert not torch.allclose(run(posterior, name, seed=4).x, whole.x)


@every_walk
def test_network_calls_and_products_are_the_stated_ones(name, key):
    posterior = POSTERIORS[key]()
    recipe = find(name).recipe(posterior, STEPS)
    spent = run(posterior, name).diagnostics
    cost = getattr(recipe.prior, "cost", Cost())
    calls = recipe.sampler.network_calls
    assert spent["network_calls"] == calls * (1 + cost.network_calls) == recipe.network_calls
    sampler = recipe.sampler
    if not find(name).jacobian:
        assert spent["jacobian_products"] == 0
    elif isinstance(sampler, ParticleMethod) or (
        isinstance(sampler, Sampler) and not sampler.splits
    ):
        density = recipe.prior.density_cost if isinstance(sampler, ParticleMethod) else Cost()
        products = calls * (cost.products + density.products)
        if not getattr(sampler, "guided", True):  # densities alone, which may take none
            products *= any(li.weighs_with_covariance for li in recipe.prior.likelihoods)
        # Conjugate gradients on the image may be done a step early.
        least = 0.9 * products if key == "image" else products
        assert least <= spent["jacobian_products"] <= products


@every_walk
def test_steps_within_a_budget_spend_it(name, key):
    posterior, budget, method = POSTERIORS[key](), 200, find(name)
    steps = method.steps_within(posterior, budget)
    if steps is None:
        assert method.recipe(posterior, 1).network_calls > 1.1 * budget
        return
    spent = method.recipe(posterior, steps).network_calls
    assert spent <= 1.1 * budget
    assert steps == budget or method.recipe(posterior, steps + 1).network_calls > budget


def test_exact_draws_spend_nothing():
    posterior = POSTERIORS[able("exact")[0]]()
    assert find("exact").steps_within(posterior, 7) == 7
    with pytest.raises(ValueError, match="network_calls"):
        find("exact").steps_within(posterior, 0)


@every_walk
def test_its_label_states_what_is_counted(name, key):
    """Figures of the label, where it gives them without conditions."""
    method, spent = find(name), run(POSTERIORS[key](), name).diagnostics
    assert ("Jacobian product" in method.cost) == method.jacobian
    number = r"(\d+) network calls?( and (\d+) vector-Jacobian products?)? a step"
    each = re.match(number, method.cost)
    if each and not {"`", ";"} & set(method.cost):
        calls = int(each[1])
        # Two calls a step are Heun's or a corrector's; the step to level 0 takes one.
        last = 1 if calls == 2 else 0
        assert spent["network_calls"] == calls * STEPS - last
        if each[2] and key != "classes":
            assert spent["jacobian_products"] == int(each[3]) * STEPS - last


@every_walk
def test_an_interrupted_run_goes_on_bit_for_bit(name, key, tmp_path, monkeypatch):
    monkeypatch.setattr("inverse.checkpoint.PERIOD", 0.0)
    posterior, total = POSTERIORS[key](), []
    whole = run(posterior, name, batch=4, callback=lambda step: total.append(step.total))

    class KilledError(Exception):
        pass

    for kill in sorted({total[0] // 2, total[0]}):

        def stop(step, kill=kill):
            if step.index == kill:
                raise KilledError

        folder = tmp_path / str(kill)
        with pytest.raises(KilledError):
            run(posterior, name, batch=4, checkpoint=folder, callback=stop)
        resumed = run(posterior, name, batch=4, checkpoint=folder)
        assert torch.equal(resumed.x, whole.x), kill
        if whole.weights is not None:
            assert torch.equal(resumed.weights, whole.weights)
            assert resumed.diagnostics["log_evidence"] == whole.diagnostics["log_evidence"]
    with pytest.raises(ValueError, match="holds another run"):
        run(posterior, name, batch=4, seed=9, checkpoint=folder)


@every_walk
def test_nan_stops_the_run_and_says_where(name, key):
    posterior = POSTERIORS[key]()
    inner = posterior.prior

    class Broken(priors.Prior):
        event_shape, sigma_range, scale = inner.event_shape, inner.sigma_range, inner.scale

        def _denoise(self, x, sigma):
            x0 = inner.denoise(x, sigma.flatten())
            return torch.where(sigma < 0.5, torch.nan, x0)

        def sample(self, n, generator=None):  # asked for by methods that measure the prior first
            return inner.sample(n, generator)

    broken = posterior.over(Broken())
    if name == "optimal-covariance":  # which looks at the prior before it runs
        with pytest.raises(ValueError, match="all finite"):
            run(broken, name)
        return
    with pytest.raises(DivergenceError, match=r"step \d+/\d+, sigma = "):
        run(broken, name)


@pytest.mark.parametrize("name", [n for n in METHODS if "opaque" in able(n)])
def test_each_sample_may_have_its_own_measurement(name):
    prior, model, y, _ = problem()
    ys = torch.cat([y, y + 0.5, y - 0.5])
    from method_cases import Opaque

    both = run(inverse.condition(Opaque(prior), model, ys), name)
    one = run(inverse.condition(Opaque(prior), model, y), name, n=2)
    torch.testing.assert_close(both.x[:2], one.x)


@every_method
def test_an_unknown_option_is_refused_with_the_known_ones(name):
    posterior = POSTERIORS[able(name)[0]]()
    with pytest.raises(TypeError, match=f"{name} has no option 'stepps'; known: "):
        run(posterior, name, stepps=3)


@every_method
def test_what_cannot_work_is_refused_with_what_can(name):
    for key in set(POSTERIORS) - set(able(name)):
        with pytest.raises(ValueError, match=f"{name}.* cannot sample .*Methods that can: .*"):
            run(POSTERIORS[key](), name)


def test_options_change_the_samples():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    assert not torch.allclose(run(posterior, "dps").x, run(posterior, "dps", zeta=0.3).x)
    with pytest.raises(TypeError, match=r"unknown argument 'zeta'.*go with method=NAME"):
        inverse.sample(posterior, zeta=0.3)


def test_black_boxes_are_sampled_by_methods_that_only_evaluate():
    asks = {m.asks for m in inverse.methods() if "black box" in able(m.name)}
    assert asks <= {"black box"}


def test_every_noise_model_of_a_linear_problem_names_a_default():
    prior, model, y, _ = problem()
    assert run(inverse.condition(prior, model, y), None).diagnostics["method"] == "exact"
    assert isinstance(model, LinearGaussian)
    curved = POSTERIORS["curved"]()
    assert run(curved, None).diagnostics["method"] == "unscented"
    many = from_simulator(torch.tanh, Gaussian(0.3), (40,))
    white = priors.Gaussian(torch.zeros(40, dtype=torch.float64), 1.0)
    posterior = inverse.condition(white, many, torch.zeros(40, dtype=torch.float64))
    assert run(posterior, None).diagnostics["method"] == "daps"


@pytest.mark.parametrize("key", POSTERIORS)
def test_the_methods_of_a_posterior_are_those_that_can(key):
    posterior = POSTERIORS[key]()
    listed = inverse.methods(posterior)
    assert {m.name for m in listed} == {name for name in METHODS if key in able(name)}
    assert all(len(repr(m)) < 80 for m in listed)
    with pytest.raises(TypeError, match=r"must be from inverse\.condition"):
        inverse.methods(posterior.prior)


def test_a_method_is_named_whatever_the_case_and_not_by_itself():
    posterior = POSTERIORS["linear"]()
    with pytest.raises(ValueError, match="did you mean 'dps'"):
        run(posterior, "DPS")
    with pytest.raises(TypeError, match=r"got the Method itself; give 'dps'$"):
        run(posterior, find("dps"))
