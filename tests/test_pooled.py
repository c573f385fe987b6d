"""Likelihoods corrected by draws of the prior: their limits, their own error, and method="auto"."""

from __future__ import annotations

import pytest
import torch
from method_cases import POSTERIORS, Opaque
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import Gaussian, Inpainting, LinearGaussian, MatrixOperator, from_simulator
from inverse.diagnostics.conversion import conversion_errors
from inverse.likelihoods import GaussianLift, Moments, PooledLift, Tweedie
from inverse.likelihoods.narrow_laws import NarrowLaws
from inverse.pool import Pool, halving
from inverse.recipes import nearest
from inverse.recipes.auto import measured_values

SIGMAS = (0.1, 3.0, 10.0)


def modes(wrapped: bool = False):
    """Six Gaussians in four dimensions, of which one combination is measured."""
    g = torch.Generator().manual_seed(1)
    means = 8 * torch.randn(6, 4, generator=g, dtype=DOUBLE)
    weights = torch.tensor([0.3, 0.1, 0.2, 0.15, 0.15, 0.1], dtype=DOUBLE)
    prior = priors.Mixture(means, 1.0, weights)
    A = torch.randn(1, 4, generator=g, dtype=DOUBLE) / 2
    model = LinearGaussian(MatrixOperator(A), 0.5)
    y = model.simulate(prior.sample(1, g), g)
    return (Opaque(prior) if wrapped else prior), model, y


def states(prior, sigma: float, n: int = 200):
    g = torch.Generator().manual_seed(2)
    return prior.sample(n, g) + sigma * torch.randn(n, 4, generator=g, dtype=DOUBLE)


def moments(prior, x, sigma) -> Moments:
    level = torch.as_tensor(sigma, dtype=DOUBLE).expand(len(x))
    x0, product = prior.covariance(x, level)
    shape = (len(x), *[1] * (x.ndim - 1))
    return Moments(x, level.reshape(shape), x0, product, prior.exact_covariance, prior)


def exact_shift(prior, model, y, x, sigma):
    return prior.condition(model, y).denoise(x, sigma) - prior.denoise(x, sigma)


def relative(a, b) -> float:
    return float(((a - b).square().sum() / b.square().sum()).sqrt())


def test_a_draw_depends_on_its_number_and_the_seed_alone():
    prior, _, y = modes()
    few, many = Pool(prior, 16, seed=3), Pool(prior, 40, seed=3, batch=7)
    torch.testing.assert_close(many.states(y)[:, :16], few.states(y))
    assert not torch.equal(Pool(prior, 16, seed=4).states(y), few.states(y))
    assert many.spent == 40 * 50


def test_draws_at_every_level_have_the_priors_moments():
    prior, _, y, _ = problem()
    pool = Pool(prior, 2000)
    assert pool.levels[0] > 10 * prior.scale
    assert pool.levels[-1] < 0.1 * prior.scale
    for s, x in zip(pool.levels, pool.states(y), strict=True):
        variance = prior.moments()[1].diagonal() + s**2
        error = 5 * (variance / 2000).sqrt()
        assert bool(((x.mean(0) - prior.mean).abs() < error).all())
        assert bool(((x.var(0) / variance - 1).abs() < 5 * (2 / 2000) ** 0.5 + 0.05).all())


def test_levels_halve():
    assert halving([8.0, 5.0, 4.0, 3.0, 1.9, 1.0, 0.9, 0.0]) == [2, 4, 6]
    prior, _, _ = modes()
    pool = Pool(prior, 16)
    coarse, *_, fine = pool.below(10.0)
    assert 10 / 8 / 2.5 < pool.levels[fine] <= 10 / 8 < pool.levels[coarse] <= 5
    assert pool.below(prior.sigma_range[0]) == []


def told(size: int, seed: int, sigma: float = 10.0):
    prior, model, y = modes()
    pool = Pool(prior, size, seed=seed)
    lift = PooledLift(model, y, pool)
    x = states(prior, sigma)
    r = lift.measured.residual(prior.denoise(x, sigma))
    laws = NarrowLaws.of(pool, pool.below(sigma)[-1], lift.measured, y)
    found = laws.tell(x, r, lift.measured.system(r).noise, sigma, 8.0)
    return found, exact_shift(prior, model, y, x, sigma)[found.rows]


def test_the_mixture_of_narrow_laws_converges_to_the_exact_likelihood():
    errors = [relative(told(size, 0)[0].shift, told(size, 0)[1]) for size in (256, 4096)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.1


def test_it_knows_its_own_error():
    """Mean squared error over eight pools against the variance that each states."""
    stated = made = 0.0
    for seed in range(8):
        found, exact = told(512, seed)
        stated += float(found.variance.sum())
        made += float((found.shift - exact).square().sum())
    assert 0.5 < made / stated < 2


def test_on_a_gaussian_prior_it_is_tweedie_up_to_chance():
    """Three standard errors apart by chance: few states, and there by little."""
    prior, model, y, _ = problem()
    pool, g = Pool(prior, 512), torch.Generator().manual_seed(5)
    moved = total = 0
    for sigma in SIGMAS:
        x = prior.sample(300, g) + sigma * torch.randn(300, 6, generator=g, dtype=DOUBLE)
        of = moments(prior, x, sigma)
        plain, log = GaussianLift(model, y, Tweedie()).evaluate(of)
        shift, log_pooled = PooledLift(model, y, pool).evaluate(of)
        assert relative(shift, plain) < 0.15
        assert float((log_pooled - log).abs().mean()) < 0.15
        moved += int((shift != plain).any(1).sum())
        total += len(x)
    assert moved < 0.1 * total


def test_it_is_nearer_than_tweedie_where_modes_are_in_question():
    prior, model, y = modes()
    pool = Pool(prior, 512)
    lifts = {
        "tweedie": lambda m, y: GaussianLift(m, y, Tweedie()),
        "pooled": lambda m, y: PooledLift(m, y, pool),
    }
    found = conversion_errors(prior, model, y, lifts, SIGMAS, draws=200)
    for path in ("posterior", "prior"):
        plain, pooled = found.of("tweedie", path), found.of("pooled", path)
        for k, sigma in enumerate(SIGMAS):
            if sigma < 1:  # one draw at most is near: it stays as it is
                assert pooled[k].score.value == plain[k].score.value
            elif plain[k].score.value > 0.1:
                assert pooled[k].score.value < 0.7 * plain[k].score.value
                assert pooled[k].log.value < plain[k].log.value


def test_networks_jacobians_give_the_same():
    prior, model, y = modes()
    hidden, _, _ = modes(wrapped=True)
    hidden.initial = prior.initial  # closed forms start from the law's own mean
    x = states(prior, 10.0, 20)
    known = PooledLift(model, y, Pool(prior, 64)).evaluate(moments(prior, x, 10.0))
    other = PooledLift(model, y, Pool(hidden, 64)).evaluate(moments(hidden, x, 10.0))
    for a, b in zip(known, other, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8)


def test_each_state_has_its_own_level():
    prior, model, y = modes()
    lift = PooledLift(model, y, Pool(prior, 128))
    x, levels = states(prior, 5.0, 6), torch.tensor([10.0, 3.0, 10.0, 0.1, 3.0, 30.0]).double()
    shift, log = lift.evaluate(moments(prior, x, levels))
    for i, sigma in enumerate(levels.tolist()):
        one, log_one = lift.evaluate(moments(prior, x[i : i + 1], sigma))
        torch.testing.assert_close(shift[i : i + 1], one)
        torch.testing.assert_close(log[i : i + 1], log_one)
        torch.testing.assert_close(lift.shift(moments(prior, x[i : i + 1], sigma)), one)


def test_states_and_draws_in_parts_make_no_difference(monkeypatch):
    prior, model, y = modes()
    of = moments(prior, states(prior, 10.0, 20), 10.0)
    whole = PooledLift(model, y, Pool(prior, 64)).evaluate(of)
    monkeypatch.setattr(PooledLift, "_together", 3)
    parts = PooledLift(model, y, Pool(prior, 64, batch=10)).evaluate(of)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(b, a)


def test_single_precision():
    prior, model, y = modes()
    of = moments(prior, states(prior, 10.0, 20), 10.0)
    known = PooledLift(model, y, Pool(prior, 64)).evaluate(of)
    single = Opaque(prior)
    single.initial = prior.initial
    model = LinearGaussian(MatrixOperator(model.operator.matrix.float()), 0.5)
    short = moments(single, of.x.float(), 10.0)
    short = Moments(short.x, short.sigma.float(), short.x0, short.product, False, single)
    found = PooledLift(model, y.float(), Pool(single, 64)).evaluate(short)
    assert all(t.dtype == torch.float32 for t in found)
    for a, b in zip(known, found, strict=True):
        torch.testing.assert_close(b.double(), a, rtol=2e-3, atol=2e-3)


def test_absorption_stops_the_pools_guidance_too():
    hidden, model, y = modes(wrapped=True)
    posterior = inverse.condition(hidden, model, y)
    told = inverse.sample(
        posterior, 512, method="auto", steps=12, seed=1, absorb=True, pool=Pool(hidden, 64)
    ).diagnostics
    assert told["method"].startswith("auto: tds")
    assert told["prepared_calls"] >= 64 * 50
    exact = inverse.condition(modes()[0], model, y)
    assert (
        inverse.sample(exact, 2, method="auto", absorb=True).diagnostics["method"] == "auto: exact"
    )


def test_stacked_measurements_share_their_laws():
    hidden, model, y = modes(wrapped=True)
    second = LinearGaussian(MatrixOperator(torch.ones(1, 4).double() / 4), 0.5)
    posterior = inverse.condition(hidden, model, y).given(second, y / 2)
    pool = Pool(hidden, 32)
    for seed in (0, 1):
        inverse.sample(posterior, 16, method="tds", steps=10, seed=seed, pool=pool)
    assert pool.spent <= 32 * (50 + len(pool.levels))


def test_a_checkpoint_tells_pools_apart(tmp_path):
    hidden, model, y = modes(wrapped=True)
    posterior = inverse.condition(hidden, model, y)

    def run(pool):
        return inverse.sample(
            posterior, 16, method="tds", steps=5, seed=0, pool=pool, checkpoint=tmp_path
        ).x

    first = run(Pool(hidden, 32))
    torch.testing.assert_close(run(Pool(hidden, 32)), first)
    with pytest.raises(ValueError, match="pool"):
        run(Pool(hidden, 64, seed=9))


def test_the_laws_of_a_forward_model_are_found_once():
    prior, model, y = modes()
    pool = Pool(prior, 32)
    of = moments(prior, states(prior, 10.0, 5), 10.0)
    PooledLift(model, y, pool).evaluate(of)
    spent = pool.spent
    assert spent == 32 * (50 + 3)
    PooledLift(model, y + 1, pool).evaluate(of)
    assert pool.spent == spent
    again = LinearGaussian(MatrixOperator(2 * model.operator.matrix), 0.5)
    PooledLift(again, y, pool).evaluate(of)
    assert pool.spent > spent


def test_particles_under_a_pool_estimate_the_evidence_without_bias():
    """30 runs of 64 particles; 100 steps, so that their discretisation is below the error."""
    prior, model, y = modes()
    pool, runs = Pool(prior, 256), 30
    many = inverse.condition(prior, model, y.expand(runs, 1).clone())
    found = inverse.sample(many, 64 * runs, method="tds", steps=100, seed=0, pool=pool)
    ratio = (torch.as_tensor(found.diagnostics["log_evidence"]) - evidence(prior)).exp().double()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / runs**0.5
    assert float(ratio.std()) < 1


def evidence(prior) -> float:
    _, model, y = modes()
    A = model.operator.matrix
    variance = (A @ A.mT + 0.25)[0, 0]
    normal = torch.distributions.Normal(prior.means @ A[0], variance.sqrt())
    return float((prior.weights.log() + normal.log_prob(y[0, 0])).logsumexp(0))


def test_what_cannot_be_pooled_is_refused():
    prior, model, y = modes()
    pool = Pool(prior, 32)
    with pytest.raises(TypeError, match="posterior"):
        Pool(inverse.condition(prior, model, y))
    with pytest.raises(TypeError, match=r"priors\.Prior"):
        Pool(torch.zeros(3))
    with pytest.raises(ValueError, match="size"):
        Pool(prior, 8)
    with pytest.raises(TypeError, match="LinearGaussian"):
        PooledLift(object(), y, pool)
    with pytest.raises(TypeError, match=r"inverse\.Pool"):
        PooledLift(model, y, prior)
    large = priors.Gaussian(torch.zeros(1, 64, 64).double(), 1.0)
    whole = LinearGaussian(Inpainting(torch.ones(1, 64, 64, dtype=torch.bool)), 0.1)
    with pytest.raises(ValueError, match="4096 measured values"):
        PooledLift(whole, torch.zeros(1, 1, 64, 64).double(), Pool(large))
    posterior = inverse.condition(prior, model, y)
    with pytest.raises(ValueError, match="another prior"):
        inverse.sample(posterior, 8, method="tds", pool=Pool(modes()[0], 32))
    wide = priors.Mixture(torch.zeros(1, 7).double(), 1.0, torch.ones(1).double())
    with pytest.raises(ValueError, match=r"images \(7,\)"):
        PooledLift(model, y, Pool(wide, 32))
    with pytest.raises(ValueError, match="twist and pool"):
        inverse.sample(
            posterior, 8, method="tds", pool=pool, twist=lambda m, y: PooledLift(m, y, pool)
        )


def test_auto_takes_what_comes_nearest():
    """The rule of `nearest`, by what is measured and how many samples are asked for."""
    hidden, model, y = modes(wrapped=True)
    few = inverse.condition(hidden, model, y)
    assert nearest(inverse.condition(modes()[0], model, y), 1, 0)[0].name == "exact"
    assert nearest(few, 511, 0)[0].name == "mmps"
    assert nearest(few, 512, 7) == (inverse.recipes.find("tds"), {})
    own = Pool(hidden, 32)
    assert nearest(few, 512, 7, own)[1]["pool"] is own
    assert nearest(POSTERIORS["black box"](), 600, 0)[0].name == "bootstrap"
    assert nearest(POSTERIORS["image"](), 600, 0)[0].name == "mmps"  # 36 values
    assert nearest(POSTERIORS["curved"](), 600, 0)[1] == {}
    assert nearest(POSTERIORS["latent"](), 600, 0)[0] == inverse.recipes.choose(
        POSTERIORS["latent"]()
    )


@pytest.mark.parametrize(("values", "method"), [(16, "tds"), (17, "daps")])
def test_a_complex_value_is_two_to_auto(values, method):
    """17 of them are 34 real numbers, more than the 32 up to which particles are taken."""
    prior = Opaque(priors.Gaussian(torch.zeros(40, dtype=DOUBLE), 1.0))
    bent = from_simulator(
        lambda x: torch.complex(x[:, :values], x[:, 1 : values + 1]).square(), Gaussian(0.1), (40,)
    )
    y = bent.simulate(torch.randn(1, 40, generator=torch.Generator().manual_seed(0), dtype=DOUBLE))
    posterior = inverse.condition(prior, bent, y)
    assert measured_values(posterior) == 2 * values
    assert nearest(posterior, 512, 0)[0].name == method


def test_auto_at_the_front_door():
    hidden, model, y = modes(wrapped=True)
    posterior = inverse.condition(hidden, model, y)
    told = inverse.sample(posterior, 512, method="auto", steps=10, seed=1).diagnostics
    assert told["method"] == "auto: tds"
    pool = inverse.Pool(hidden, 32)
    told = inverse.sample(posterior, 512, method="auto", steps=10, seed=1, pool=pool).diagnostics
    assert told["method"] == "auto: tds, pool"
    assert told["prepared_calls"] >= 32 * 50
    same = [inverse.sample(posterior, 512, method="auto", steps=10, seed=1).x for _ in range(2)]
    torch.testing.assert_close(*same)
    with pytest.warns(RuntimeWarning, match="the pool is not used: 'auto' takes mmps"):
        inverse.sample(
            posterior, 2, method="auto", steps=5, seed=1, pool=inverse.Pool(hidden, 16, steps=3)
        )
    few = inverse.sample(posterior, 2, method="auto", steps=5, seed=1).diagnostics
    assert few["method"] == "auto: mmps"
    assert "prepared_calls" not in few
    with pytest.raises(TypeError, match="chooses for itself"):
        inverse.sample(posterior, 2, method="auto", eta=1.0)
    with pytest.raises(ValueError, match="needs a measurement"):
        inverse.sample(hidden, 2, method="auto")
    with pytest.raises(ValueError, match="no method of its own"):
        inverse.recipes.find("auto")
    report = inverse.calibrate(hidden, model, "auto", n=20, draws=9, steps=5, images=draws_of())
    assert report.method == "auto: mmps"


def draws_of():
    return modes()[0].sample(20, torch.Generator().manual_seed(3))
