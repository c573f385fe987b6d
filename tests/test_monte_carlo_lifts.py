"""Likelihoods by draws, to a power and annealed, against closed forms and quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import (
    Gaussian,
    Identity,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    from_simulator,
)
from inverse.likelihoods import (
    Absorbed,
    Cost,
    Exact,
    GaussianLift,
    Isotropic,
    Moments,
    MonteCarloLift,
    PlugIn,
    ReverseRunLift,
    Scaled,
    ScoreALD,
    Tweedie,
    Zero,
)


def moments(prior: priors.Prior, x: torch.Tensor, sigma: float | torch.Tensor) -> Moments:
    level = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x))
    x0, product = prior.covariance(x, level)
    level = level.reshape(-1, *[1] * (x.ndim - 1))
    return Moments(x, level, x0, product, exact=prior.exact_covariance, prior=prior)


def curved(differentiable: bool = True):
    """y = x0 + 0.3 x0^2 + noise, one value."""
    return from_simulator(lambda x: x + 0.3 * x**2, Gaussian(0.4), (1,), None, differentiable)


def quadrature(model, y, log_density):
    """log of the integral of p(y | z) exp(log_density(z)) over z, and the mean of z under it."""
    z = torch.linspace(-8, 8, 40_001, dtype=DOUBLE)[:, None]
    log = model.log_likelihood(y, z) + log_density(z)
    total = torch.logsumexp(log, 0)
    return float(total + math.log(16 / 40_000)), float(torch.softmax(log, 0) @ z[:, 0])


PRIOR = priors.Gaussian(torch.tensor([0.5], dtype=DOUBLE), 0.49)
ONE = torch.tensor([[1.2]], dtype=DOUBLE)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 10.0])
def test_monte_carlo_tends_to_quadrature_of_a_nonlinear_model(sigma):
    """The prior is N(m, s^2), so that the lift's Gaussian is the true p(x0 | x)."""
    x, K = torch.tensor([[0.9]], dtype=DOUBLE), 40_000
    given = moments(PRIOR, x, sigma)
    D, r = float(given.x0), 0.7 * sigma / math.hypot(sigma, 0.7)
    law = torch.distributions.Normal(torch.tensor(D, dtype=DOUBLE), r)
    exact, mean = quadrature(curved(), ONE, lambda z: law.log_prob(z[:, 0]))
    shift, value = MonteCarloLift(curved(), ONE, scale=0.7, draws=K).evaluate(given)
    draws = D + r * torch.randn(K, 1, generator=torch.Generator().manual_seed(7), dtype=DOUBLE)
    p = curved().log_likelihood(ONE, draws).exp()
    error = float(p.std() / p.mean()) / math.sqrt(K)
    assert abs(float(value) - exact) < 5 * error
    assert abs(float(shift) - (mean - D)) < 10 * r / math.sqrt(K)


def test_monte_carlo_is_unbiased_in_the_density_and_low_in_its_logarithm():
    given = moments(PRIOR, torch.tensor([[0.9]], dtype=DOUBLE), 1.0)
    r = 0.7 / math.hypot(1, 0.7)
    law = torch.distributions.Normal(given.x0[0, 0], r)
    exact, _ = quadrature(curved(), ONE, lambda z: law.log_prob(z[:, 0]))
    values = torch.cat([
        MonteCarloLift(curved(), ONE, scale=0.7, draws=4, seed=seed).log_likelihood(given)
        for seed in range(600)
    ])  # fmt: skip
    error = float(values.exp().std()) / math.sqrt(600)
    assert abs(float(values.exp().mean()) - math.exp(exact)) < 4 * error
    assert float(values.mean()) < exact - 4 * float(values.std()) / math.sqrt(600)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
def test_monte_carlo_on_two_values_is_pigdm(sigma):
    """Linear-Gaussian: the integral is that of the isotropic Gaussian lift."""
    prior, _, _, _ = problem(isotropic=True, size=2, rows=1)
    model = LinearGaussian(MatrixOperator(torch.tensor([[1.0, -0.5]], dtype=DOUBLE)), 0.3)
    y, x = torch.tensor([[0.4]], dtype=DOUBLE), torch.tensor([[1.0, 2.0]], dtype=DOUBLE)
    given = moments(prior, x, sigma)
    exact = GaussianLift(model, y, Isotropic(s=math.sqrt(0.7)))
    ours = MonteCarloLift(model, y, scale=math.sqrt(0.7), draws=100_000)
    assert float((ours.shift(given) - exact.shift(given)).abs().max()) < 0.02
    assert float((ours.log_likelihood(given) - exact.log_likelihood(given)).abs()) < 0.02


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_shift_of_monte_carlo_is_the_gradient_of_its_density(sigma):
    prior, model, y, x = problem()
    lift = MonteCarloLift(model, y, scale=prior.scale, draws=200)
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(lift.log_likelihood(moments(prior, at, sigma)).sum(), at)
    shift = lift.shift(moments(prior, x, sigma))
    free = sigma**2 * gradient
    if sigma == 0.1:
        torch.testing.assert_close(shift, free, rtol=1e-8, atol=1e-10)
    # The bound keeps the direction and shortens the step.
    length = (shift * free).sum(1) / free.square().sum(1)
    torch.testing.assert_close(shift, length[:, None] * free, rtol=1e-8, atol=1e-10)
    assert bool((length > 0).all())
    assert bool((length <= 1 + 1e-9).all())


def test_a_monte_carlo_shift_never_lowers_its_likelihood():
    """Few draws, many values, small noise: a bare step would leave for infinity."""
    prior = priors.Gaussian(torch.zeros(30, dtype=DOUBLE), 1.0)
    model = LinearGaussian(Identity((30,)), 0.01)
    y = torch.ones(1, 30, dtype=DOUBLE)
    given = moments(prior, torch.full((1, 30), -3.0, dtype=DOUBLE), 5.0)
    lift = MonteCarloLift(model, y, scale=1.0)
    bare = PlugIn(model, y).shift(given)
    shift = lift.shift(given)
    assert float(bare.norm()) > 1000 * float((y - given.x0).norm())
    assert float(shift.norm()) < 2 * float((y - given.x0).norm())
    moved = Moments(given.x, given.sigma, given.x0 + shift)
    assert float(lift.log_likelihood(moved)) > float(lift.log_likelihood(given))


def mixture():
    g = torch.Generator().manual_seed(3)
    means = 2 * torch.randn(4, 2, generator=g, dtype=DOUBLE)
    prior = priors.Mixture(means, 0.3, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE))
    model = LinearGaussian(MatrixOperator(torch.randn(1, 2, generator=g, dtype=DOUBLE)), 0.5)
    y = model.simulate(prior.sample(1, generator=g), generator=g)
    return prior, model, y


@pytest.mark.parametrize("sigma", [0.5, 2.0, 8.0])
def test_reverse_runs_recover_the_likelihood_of_a_mixture(sigma):
    """Where no Gaussian stands for p(x0 | x): density and gradient against the closed form."""
    prior, model, y = mixture()
    posterior, K = prior.condition(model, y), 4000
    g = torch.Generator().manual_seed(5)
    x = posterior.sample(3, generator=g) + sigma * torch.randn(3, 2, generator=g, dtype=DOUBLE)
    given = moments(prior, x, sigma)
    shift = posterior.denoise(x, sigma) - given.x0
    log = posterior.log_density(x, sigma) - prior.log_density(x, sigma)
    log = log + prior.log_evidence(model, y)
    lift = ReverseRunLift(model, y, runs=K, steps=40)
    ours, value = lift.evaluate(given)
    ess = lift.effective_sample_size(given)
    spread = posterior.covariance(x, sigma)[1](torch.ones_like(x)).abs().max().sqrt()
    assert bool((ess > 50).all())
    assert bool((ess <= K).all())
    # Monte-Carlo error of a self-normalised mean, and the discretisation of 40 steps.
    assert bool(((ours - shift).abs().amax(1) < 5 * spread / ess.sqrt() + 0.03).all())
    assert bool(((value - log).abs() < 5 * (1 / ess - 1 / K).clamp(min=0).sqrt() + 0.04).all())


def test_reverse_runs_serve_black_boxes():
    x = torch.tensor([[0.9], [-0.4]], dtype=DOUBLE)
    given = moments(PRIOR, x, 1.0)
    lift = ReverseRunLift(curved(differentiable=False), ONE, runs=20_000, steps=30)
    shift, value = lift.evaluate(given)
    for i in range(2):
        law = torch.distributions.Normal(given.x0[i, 0], 0.7 / math.hypot(1, 0.7))
        exact, mean = quadrature(curved(), ONE, lambda z, law=law: law.log_prob(z[:, 0]))
        assert abs(float(value[i]) - exact) < 0.05
        assert abs(float(shift[i]) - (mean - float(given.x0[i]))) < 0.02
    smooth = MonteCarloLift(curved(), ONE, scale=0.7)
    black = MonteCarloLift(curved(differentiable=False), ONE, scale=0.7)
    torch.testing.assert_close(black.log_likelihood(given), smooth.log_likelihood(given))
    with pytest.raises(TypeError, match="black box"):
        black.shift(given)


def test_reverse_runs_count_their_network_calls_and_take_no_product():
    prior, model, y = mixture()
    assert ReverseRunLift(model, y, runs=6, steps=3).cost == Cost(network_calls=30)
    posterior = inverse.condition(
        prior, model, y, lift=lambda m, z: ReverseRunLift(m, z, runs=6, steps=3, batch=4)
    )
    assert posterior.cost == Cost(network_calls=30)
    counts = inverse.sample(posterior, n=2, steps=4, seed=0).diagnostics
    assert counts["jacobian_products"] == 0
    # Of one sample, whatever share a call: 6 runs, 5 calls each.
    assert counts["network_calls"] == 4 * (1 + 6 * 5)


def test_samples_under_reverse_runs_follow_the_posterior():
    prior, model, y = mixture()
    truth = prior.condition(model, y)
    posterior = inverse.condition(
        prior, model, y, lift=lambda m, z: ReverseRunLift(m, z, runs=32, steps=8)
    )
    x = inverse.sample(posterior, n=300, steps=25, seed=0, dtype=DOUBLE).x
    exact = truth.sample(300, generator=torch.Generator().manual_seed(1))
    unmeasured = prior.sample(300, generator=torch.Generator().manual_seed(1))

    def distance(a, b):
        return float((a.sort(0).values - b.sort(0).values).abs().mean())

    assert distance(x, exact) < 0.3 * distance(unmeasured, exact)


LIFTS = {
    "monte carlo": lambda m, y: MonteCarloLift(m, y, scale=0.8),
    "reverse runs": lambda m, y: ReverseRunLift(m, y, runs=8, steps=4),
    "ald": ScoreALD,
    "scaled": lambda m, y: Scaled(GaussianLift(m, y, Zero()), 3.0),
}
every_lift = pytest.mark.parametrize("lift", LIFTS.values(), ids=LIFTS.keys())


@every_lift
def test_a_sample_depends_on_no_batch_mate_and_no_call_before(lift):
    prior, model, y, x = problem()
    likelihood = lift(model, y)
    levels = torch.tensor([0.6, 0.6, 2.0], dtype=DOUBLE)
    together = likelihood.evaluate(moments(prior, x, levels))
    for i in range(3):
        alone = likelihood.evaluate(moments(prior, x[i : i + 1], levels[i : i + 1]))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b[i : i + 1], rtol=1e-10, atol=1e-12)
    own = lift(model, y.expand(3, -1).clone()).evaluate(moments(prior, x, levels))
    again = likelihood.evaluate(moments(prior, x, levels))
    for a, b, c in zip(together, own, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert torch.equal(a, c)
    given = moments(prior, x, levels)
    assert torch.equal(likelihood.shift(given), together[0])
    assert torch.equal(likelihood.log_likelihood(given), together[1])


@every_lift
def test_both_precisions_draw_the_same(lift):
    prior, model, y, x = problem()
    single = priors.Gaussian(prior.mean.float(), prior.C.dense().float())
    narrow = LinearGaussian(MatrixOperator(model.operator.matrix.float()), 0.2)
    exact = lift(model, y).shift(moments(prior, x, 0.7))
    ours = lift(narrow, y.float()).shift(moments(single, x.float(), 0.7))
    torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-3)


@every_lift
def test_unmeasured_entries_have_no_effect(lift):
    mask = torch.tensor([True, False, True, False, True, True])
    prior, _, _, x = problem()
    model = LinearGaussian(Inpainting(mask), 0.1)
    y = torch.randn(1, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    given = moments(prior, x, 0.5)
    pairs = zip(
        lift(model, y).evaluate(given),
        lift(model, torch.where(mask, y, 77.0)).evaluate(given),
        strict=True,
    )
    for a, b in pairs:
        assert torch.equal(a, b)


def test_scaled_multiplies_both_and_is_exact_at_one():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    exact = Exact(Component(mixture), torch.tensor([1]))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    given = moments(mixture, x, 0.8)
    twice = Scaled(exact, 2.0)
    torch.testing.assert_close(twice.shift(given), 2 * exact.shift(given))
    torch.testing.assert_close(twice.log_likelihood(given), 2 * exact.log_likelihood(given))
    _, model, z, _ = problem()
    absorbed = Absorbed(GaussianLift(model, z, Tweedie()))
    assert Scaled(absorbed, 1.0).exact_at(absorbed.threshold)
    assert not Scaled(absorbed, 2.0).exact_at(absorbed.threshold)
    assert not exact.exact_at(0.5)
    assert twice.cost == exact.cost
    with pytest.raises(ValueError, match="scale must be a finite number > 0"):
        Scaled(exact, 0.0)
    with pytest.raises(TypeError, match="must be a Likelihood"):
        Scaled(x, 2.0)


def test_score_ald_is_the_gradient_of_its_gaussian():
    prior, model, y, x = problem()
    lift = ScoreALD(model, y, gamma=1.5)
    levels = torch.tensor([0.1, 1.0, 3.0], dtype=DOUBLE)
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(lift.log_likelihood(moments(prior, at, levels)).sum(), at)
    expected = levels[:, None] ** 2 * gradient
    torch.testing.assert_close(lift.shift(moments(prior, x, levels)), expected)
    # By hand, at the one level: N(y; A x, S + (gamma |A| sigma)^2).
    A = model.operator.matrix
    variance = 0.04 + (1.5 * torch.linalg.matrix_norm(A, 2) * 1.0) ** 2
    law = torch.distributions.Normal(x[1] @ A.T, variance.sqrt())
    value = lift.log_likelihood(moments(prior, x, levels))[1]
    torch.testing.assert_close(value, law.log_prob(y[0]).sum(), rtol=1e-3, atol=1e-3)
    assert lift.cost == Cost()


def test_bad_arguments_are_refused():
    _, model, y, _ = problem()
    component = Component(mixture()[0])
    for make in (
        lambda: MonteCarloLift(component, y, scale=1.0),
        lambda: ReverseRunLift(component, y),
    ):
        with pytest.raises(TypeError, match="needs a ForwardModel"):
            make()
    with pytest.raises(TypeError, match="needs a LinearGaussian"):
        ScoreALD(curved(), y)
    for make, name in (
        (lambda: MonteCarloLift(model, y, scale=0.0), "scale"),
        (lambda: MonteCarloLift(model, y, scale=1.0, draws=0), "draws"),
        (lambda: ReverseRunLift(model, y, runs=1), "runs"),
        (lambda: ReverseRunLift(model, y, steps=1), "steps"),
        (lambda: ReverseRunLift(model, y, batch=0), "batch"),
        (lambda: ScoreALD(model, y, gamma=-1.0), "gamma"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            make()
