"""Likelihoods at every noise level, against closed forms and against differentiation."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import (
    Blur,
    ForwardModel,
    GammaSpeckle,
    Gaussian,
    Identity,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    Observation,
    Poisson,
    Quantised,
    from_simulator,
    gaussian_kernel,
)
from inverse.likelihoods import (
    Exact,
    GaussianLift,
    Isotropic,
    LinearisedLift,
    Moments,
    NormalizedPlugIn,
    PlugIn,
    Tweedie,
    Zero,
)


def moments(prior: priors.Prior, x: torch.Tensor, sigma: float) -> Moments:
    x0, product = prior.covariance(x, sigma)
    level = torch.full((x.shape[0], *[1] * (x.ndim - 1)), sigma, dtype=x.dtype)
    return Moments(x, level, x0, product, exact=prior.exact_covariance)


LIFTS = {
    "zero": lambda m, y: GaussianLift(m, y, Zero()),
    "plug-in": PlugIn,
    "isotropic": lambda m, y: GaussianLift(m, y, Isotropic(s=math.sqrt(0.7))),
    "isotropic, wide": lambda m, y: GaussianLift(m, y, Isotropic()),
    "isotropic, no Jacobian": lambda m, y: GaussianLift(
        m, y, Isotropic(s=math.sqrt(0.7)), jacobian=False
    ),
    "tweedie": lambda m, y: GaussianLift(m, y, Tweedie()),
    "normalized": lambda m, y: NormalizedPlugIn(m, y, zeta=1.0, schedule=priors.VP(), steps=1000),
}
LIFTS["linearised"] = lambda m, y: LinearisedLift(Observation(m.operator, Gaussian(m.sigma)), y)
every_lift = pytest.mark.parametrize("lift", LIFTS.values(), ids=LIFTS.keys())


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 3.0])
def test_plug_in_of_an_observation_ends_at_the_best_point_of_its_line(sigma):
    """For a linear f and Gaussian noise the line search is exact; small shifts are left alone."""
    prior, linear, y, x = problem()
    free = PlugIn(linear, y).shift(moments(prior, x, sigma))
    given = moments(prior, x, sigma)
    observed = Observation(linear.operator, Gaussian(linear.sigma))
    shift = PlugIn(observed, y).shift(given)
    # log p is a parabola in the step; three values give its vertex.
    here, half, there = (
        linear.log_likelihood(y[:1], given.x0 + step * free) for step in (0.0, 0.5, 1.0)
    )
    bend = 2 * (here - 2 * half + there)
    vertex = (-(there - here - bend) / (2 * bend)).clamp(max=1)
    expected = vertex.reshape(-1, *[1] * (x.ndim - 1)) * free
    torch.testing.assert_close(shift, expected, rtol=1e-6, atol=1e-9)
    if sigma == 1e-3:
        torch.testing.assert_close(shift, free, rtol=1e-12, atol=0)


def test_linearised_is_tweedies_for_linear_gaussian_models():
    prior, linear, y, x = problem()
    observed = Observation(linear.operator, Gaussian(linear.sigma))
    given = moments(prior, x, 0.7)
    expected = GaussianLift(linear, y, Tweedie()).shift(given)
    torch.testing.assert_close(LinearisedLift(observed, y).shift(given), expected)


@pytest.mark.parametrize("noise", [Poisson(0.02), GammaSpeckle(8.0), Quantised(0.25, 0.15)])
def test_linearised_samples_of_one_value_against_quadrature(noise):
    """A Gaussian prior of one value, and noise that is not Gaussian."""
    prior = priors.Gaussian(torch.tensor([1.0], dtype=DOUBLE), 0.09)
    model = Observation(Identity((1,)), noise)
    y = model.simulate(torch.tensor([[1.3]], dtype=DOUBLE), torch.Generator().manual_seed(3))
    grid = torch.linspace(0.01, 3, 6000, dtype=DOUBLE)[:, None]
    log = model.log_likelihood(y, grid) - (grid[:, 0] - 1).square() / 0.18
    weight = torch.softmax(log, 0)
    mean = float(weight @ grid[:, 0])
    std = float((weight @ (grid[:, 0] - mean).square()).sqrt())
    n = 2000
    samples = inverse.sample(inverse.condition(prior, model, y), n=n, steps=60, seed=0)
    assert samples.diagnostics["method"] == "mmps"
    # The stand-in is Gaussian: what it leaves of the skewness is within a tenth of the spread.
    assert abs(float(samples.mean) - mean) < (0.1 + 5 / n**0.5) * std
    assert abs(float(samples.std) / std - 1) < 0.1 + 5 / (2 * n) ** 0.5


def test_masked_and_black_box_observations():
    prior, linear, y, x = problem()
    seen = torch.tensor([True, False, True, True])
    operator = Inpainting(seen) @ linear.operator
    observed = LinearisedLift(Observation(operator, Gaussian(0.3)), y * seen)
    expected = GaussianLift(LinearGaussian(operator, 0.3), y * seen, Tweedie())
    given = moments(prior, x, 0.7)
    torch.testing.assert_close(observed.shift(given), expected.shift(given))
    box = from_simulator(lambda x: x.square(), Gaussian(0.1), (3,), differentiable=False)
    with pytest.raises(TypeError, match="differentiable"):
        LinearisedLift(box, y)
    with pytest.raises(TypeError, match="independent noise"):
        LinearisedLift(linear, y)


def test_plug_in_of_a_steep_simulator_does_not_leap():
    """y = x^2 measured finely: a bare gradient step leaves for infinity, a bounded one not."""
    prior = priors.Gaussian(torch.ones(4, dtype=DOUBLE), 1.0)
    model = from_simulator(lambda x: x.square(), Gaussian(0.01), (4,))
    y = torch.full((1, 4), 1.44, dtype=DOUBLE)
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=8, method="dps", steps=100, seed=0)
    assert float((samples.x.abs() - 1.2).abs().max()) < 0.1


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 10.0])
def test_tweedie_is_exact_for_gaussian_priors(sigma):
    """Score and log-likelihood against the closed form p_sigma(y | x)."""
    prior, model, y, x = problem()
    lift, given = GaussianLift(model, y, Tweedie()), moments(prior, x, sigma)
    posterior = prior.condition(model, y)
    exact = posterior.denoise(x, sigma) - prior.denoise(x, sigma)
    assert torch.allclose(lift.shift(given), exact, rtol=1e-6, atol=1e-9)
    # log p_sigma(y | x) = log p_sigma(x | y) + log p(y) - log p_sigma(x)
    evidence = priors.Mixture(
        prior.mean[None], prior.C.dense()[None], torch.ones(1, dtype=DOUBLE)
    ).log_evidence(model, y)
    expected = posterior.log_density(x, sigma) + evidence - prior.log_density(x, sigma)
    assert torch.allclose(lift.log_likelihood(given), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 5.0])
def test_isotropic_is_exact_for_isotropic_gaussian_priors(sigma, jacobian):
    prior, model, y, x = problem(isotropic=True)
    lift = GaussianLift(model, y, Isotropic(s=math.sqrt(0.7)), jacobian)
    exact = prior.condition(model, y).denoise(x, sigma) - prior.denoise(x, sigma)
    assert torch.allclose(lift.shift(moments(prior, x, sigma)), exact, rtol=1e-8, atol=1e-10)


def test_isotropic_and_zero_are_not_exact_for_correlated_priors():
    prior, model, y, x = problem()
    exact = prior.condition(model, y).denoise(x, 1.0) - prior.denoise(x, 1.0)
    for name in ("zero", "isotropic", "isotropic, no Jacobian", "normalized"):
        shift = LIFTS[name](model, y).shift(moments(prior, x, 1.0))
        assert (shift - exact).norm() > 0.05 * exact.norm(), name


@pytest.mark.parametrize("name", ["zero", "plug-in", "isotropic", "tweedie"])
def test_every_lift_tends_to_the_likelihood_as_sigma_falls(name):
    prior, model, y, x = problem()
    sigma = 1e-4
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_likelihood(y, at).sum(), at)
    shift = LIFTS[name](model, y).shift(moments(prior, x, sigma))
    assert torch.allclose(shift / sigma**2, gradient, rtol=1e-4)


@pytest.mark.parametrize("name", ["zero", "plug-in", "isotropic", "tweedie"])
@pytest.mark.parametrize("sigma", [0.2, 2.0])
def test_the_shift_is_the_gradient_of_the_log_likelihood(name, sigma):
    """On a Gaussian prior, whose covariance does not depend on x, shift = sigma^2 grad log p."""
    prior, model, y, x = problem()
    lift = LIFTS[name](model, y)
    at = x.clone().requires_grad_()
    given = moments(prior, at, sigma)
    (gradient,) = torch.autograd.grad(lift.log_likelihood(given).sum(), at)
    assert torch.allclose(lift.shift(moments(prior, x, sigma)), sigma**2 * gradient, rtol=1e-6)


@every_lift
def test_a_sample_does_not_depend_on_its_batch(lift):
    prior, model, y, x = problem()
    likelihood = lift(model, y)
    together = likelihood.shift(moments(prior, x, 0.6))
    for i in range(len(x)):
        alone = likelihood.shift(moments(prior, x[i : i + 1], 0.6))
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)


@every_lift
def test_image_shaped_measurements_are_solved_whole(lift):
    """An image-shaped y gives the shift of the same problem written as a matrix."""
    g = torch.Generator().manual_seed(2)
    operator = Blur(gaussian_kernel(0.8, 3).to(DOUBLE), padding="constant")
    matrix = operator(torch.eye(20, dtype=DOUBLE).reshape(20, 1, 4, 5)).reshape(20, 20).T
    x = torch.randn(2, 1, 4, 5, generator=g, dtype=DOUBLE)
    y = torch.randn(1, 1, 4, 5, generator=g, dtype=DOUBLE)
    root = torch.randn(20, 20, generator=g, dtype=DOUBLE)
    covariance = root @ root.T / 20 + 0.1 * torch.eye(20, dtype=DOUBLE)
    image = priors.Gaussian(torch.zeros(1, 4, 5, dtype=DOUBLE), covariance)
    flat = priors.Gaussian(torch.zeros(20, dtype=DOUBLE), covariance)
    a = lift(LinearGaussian(operator, 0.3), y).shift(moments(image, x, 0.7))
    b = lift(LinearGaussian(MatrixOperator(matrix), 0.3), y.flatten(1)).shift(
        moments(flat, x.flatten(1), 0.7)
    )
    # The published weight uses |A| from a power iteration, known to a few digits.
    assert torch.allclose(a.flatten(1), b, rtol=1e-3, atol=1e-6)


def test_unmeasured_entries_of_y_have_no_effect():
    mask = torch.tensor([True, False, True, False, True, True])
    prior, _, _, x = problem()
    model = LinearGaussian(Inpainting(mask), 0.1)
    y = torch.randn(1, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    other = torch.where(mask, y, 77.0)
    for name, lift in LIFTS.items():
        a = lift(model, y).shift(moments(prior, x, 0.5))
        b = lift(model, other).shift(moments(prior, x, 0.5))
        assert torch.equal(a, b), name


def test_tweedie_spends_one_product_an_iteration():
    prior, model, y, x = problem()
    for iterations in (1, 2, 3):
        calls = []
        x0, product = prior.covariance(x, 1.0)

        def counted(v, product=product, calls=calls):
            calls.append(1)
            return product(v)

        level = torch.full((3, 1), 1.0, dtype=DOUBLE)
        GaussianLift(model, y, Tweedie(iterations)).shift(Moments(x, level, x0, counted))
        assert len(calls) == iterations


def test_tweedie_truncated_approaches_the_full_solve():
    prior, model, y, x = problem()
    given = moments(prior, x, 1.0)
    full = GaussianLift(model, y, Tweedie()).shift(given)
    errors = [
        float((GaussianLift(model, y, Tweedie(k)).shift(given) - full).norm()) for k in (1, 2, 3, 4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8  # four measurements: four iterations are exact


def test_normalized_plug_in_is_the_published_update():
    """x_t' <- ancestral(x_t) - zeta grad_{x_t} |y - A D|, where neither bound holds."""
    prior, _, _, _ = problem(size=400, rows=4)
    g = torch.Generator().manual_seed(5)
    model = LinearGaussian(MatrixOperator(torch.eye(400, dtype=DOUBLE)), 0.01)
    y = 3 * torch.randn(1, 400, generator=g, dtype=DOUBLE)
    steps, schedule, zeta = 1000, priors.VP(), 0.3
    t, t_next = torch.tensor([0.5]), torch.tensor([0.499])
    alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
    sigma, sigma_next = float(schedule.sigma(t)), float(schedule.sigma(t_next))
    x_t = torch.randn(2, 400, generator=g, dtype=DOUBLE, requires_grad=True)
    residual = y - prior.denoise(x_t / alpha, sigma)
    (gradient,) = torch.autograd.grad(residual.norm(dim=1).sum(), x_t)
    published = -zeta * gradient  # of x_t' in the schedule's own coordinates
    lift = NormalizedPlugIn(model, y, zeta=zeta, schedule=schedule, steps=steps)
    shift = lift.shift(moments(prior, (x_t / alpha).detach(), sigma))
    ours = alpha_next * (1 - sigma_next**2 / sigma**2) * shift
    assert torch.allclose(ours, published, rtol=1e-3)


def test_bad_pairs_are_refused_at_construction():
    _, model, y, _ = problem()

    class Clean(ForwardModel):
        event_shape = (6,)

        def log_likelihood(self, y, x):
            return x.sum(1)

        def simulate(self, x, generator=None):
            return x

    with pytest.raises(TypeError, match="needs a LinearGaussian"):
        GaussianLift(Clean(), y, Zero())
    with pytest.raises(TypeError, match="needs a LinearGaussian"):
        NormalizedPlugIn(Clean(), y, zeta=1.0, schedule=priors.VP(), steps=10)
    with pytest.raises(TypeError, match="needs a TimeDependent"):
        Exact(model, y)
    for covariance in (Zero(), Tweedie()):
        with pytest.raises(ValueError, match="without the Jacobian"):
            GaussianLift(model, y, covariance, jacobian=False)
    with pytest.raises(ValueError, match="must be positive"):
        NormalizedPlugIn(model, y, zeta=0.0, schedule=priors.VP(), steps=10)


def test_the_log_likelihood_of_a_large_lift_is_refused():
    prior = priors.Gaussian(torch.zeros(1, 70, 70), 1.0)
    model = LinearGaussian(Inpainting(torch.ones(1, 70, 70, dtype=torch.bool)), 0.1)
    given = moments(prior, torch.zeros(1, 1, 70, 70), 1.0)
    with pytest.raises(ValueError, match="at most 4096"):
        GaussianLift(model, torch.zeros(1, 1, 70, 70), Tweedie()).log_likelihood(given)


def test_exact_gives_the_gradient_of_a_time_dependent_model():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    level = torch.full((4, 1), 0.8, dtype=DOUBLE)
    shift = Exact(Component(mixture), torch.tensor([1])).shift(
        Moments(x, level, mixture.denoise(x, 0.8))
    )
    alone = priors.Gaussian(means[1], 0.2)
    assert torch.allclose(shift, alone.denoise(x, 0.8) - mixture.denoise(x, 0.8), atol=1e-10)
