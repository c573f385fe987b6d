"""Likelihoods at every noise level: the contract of all, then the plug-ins and the exact one."""

from __future__ import annotations

import math

import pytest
import torch
from likelihood_cases import CASES, AsNetwork, mixture, moments
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import (
    Blur,
    ForwardModel,
    Gaussian,
    Identity,
    Inpainting,
    Laplace,
    LinearGaussian,
    MatrixOperator,
    Observation,
    PhaseRetrieval,
    Poisson,
    RealToComplex,
    from_simulator,
    gaussian_kernel,
)
from inverse.likelihoods import (
    Exact,
    GaussianLift,
    Moments,
    NormalizedPlugIn,
    PlugIn,
    Tweedie,
    Zero,
)
from inverse.recipes import find

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def close(found, expected, case):
    torch.testing.assert_close(found, expected, rtol=case.tolerance, atol=case.tolerance / 100)


@every_case
@pytest.mark.parametrize("sigma", [0.02, 0.5, 2.0])
def test_evaluate_gives_both_and_each_sample_stands_alone(case, sigma):
    prior, model, y, x = problem()
    likelihood = case.make(model, y)
    shift, log_p = likelihood.evaluate(moments(prior, x, sigma))
    assert shift.shape == x.shape
    assert log_p.shape == (len(x),)
    close(likelihood.shift(moments(prior, x, sigma)), shift, case)
    close(likelihood.log_likelihood(moments(prior, x, sigma)), log_p, case)
    for i in range(len(x)):
        alone = likelihood.evaluate(moments(prior, x[i : i + 1], sigma))
        close(alone[0], shift[i : i + 1], case)
        close(alone[1], log_p[i : i + 1], case)


@every_case
def test_levels_may_differ_within_a_batch(case):
    prior, model, y, x = problem()
    sigma = torch.tensor([0.02, 0.4, 3.0], dtype=DOUBLE)
    x0, product = prior.covariance(x, sigma)
    likelihood = case.make(model, y)
    given = Moments(x, sigma[:, None], x0, product, exact=True, prior=prior)
    together = likelihood.evaluate(given)
    for i in range(len(x)):
        alone = likelihood.evaluate(moments(prior, x[i : i + 1], float(sigma[i])))
        close(together[0][i : i + 1], alone[0], case)
        close(together[1][i : i + 1], alone[1], case)


@every_case
@pytest.mark.parametrize("sigma", [0.2, 2.0])
def test_the_shift_is_the_gradient_of_the_log_likelihood(case, sigma):
    """shift = sigma^2 grad_x log p, on priors of any kind or on Gaussian ones, as claimed."""
    if case.gradient == "none":
        pytest.skip("no gradient is kept")
    gaussian, model, y, x = problem()
    for prior, claimed in ((mixture(), ("always",)), (gaussian, ("always", "gaussian"))):
        likelihood = case.make(model, y)
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            likelihood.log_likelihood(moments(prior, at, sigma)).sum(), at
        )
        shift = likelihood.shift(moments(prior, x, sigma))
        if case.gradient in claimed:
            torch.testing.assert_close(shift, sigma**2 * gradient, rtol=1e-6, atol=1e-9)
        elif prior is gaussian and sigma == 2.0:  # at small ones they may meet
            assert case.why
            assert float((shift - sigma**2 * gradient).norm() / shift.norm()) > 1e-3


@every_case
def test_they_tend_to_the_likelihood_as_sigma_falls(case):
    prior, model, y, x = problem()
    sigma = 1e-4
    at = x.clone().requires_grad_()
    expected = case.power * model.log_likelihood(y, at)
    (gradient,) = torch.autograd.grad(expected.sum(), at)
    likelihood = case.make(model, y)
    shift, log_p = likelihood.evaluate(moments(prior, x, sigma))
    density, slope = case.limit
    torch.testing.assert_close(log_p, expected.detach(), rtol=density, atol=density)
    if likelihood.__class__ is not NormalizedPlugIn:
        assert float((shift / sigma**2 - gradient).norm() / gradient.norm()) < slope


@every_case
@pytest.mark.parametrize("sigma", [0.02, 1.0])
def test_the_density_is_normalised_in_y(case, sigma):
    """Its integral over all y of one value is 1."""
    prior, _, _, x = problem(rows=1)
    A = torch.ones(1, 6, dtype=DOUBLE) / 3
    model = LinearGaussian(MatrixOperator(A), 0.2)
    y = torch.linspace(-12, 12, 2401, dtype=DOUBLE)[:, None]
    x = x[:1].expand(len(y), -1)
    log_p = case.make(model, y).log_likelihood(moments(prior, x, sigma))
    mass = float(log_p.exp().sum() * 0.01)
    if case.power == 1:
        assert abs(mass - 1) < 1e-8
    else:
        assert abs(mass - 1) > 0.1


@every_case
def test_the_cost_is_what_is_spent(case):
    prior, model, y, x = problem()
    likelihood, network = case.make(model, y), AsNetwork(prior)
    cost, further = likelihood.cost, likelihood.density_cost
    given = moments(network, x, 1.0)
    likelihood.shift(given)
    # Converged before its last iteration, a solve may spend less.
    assert network.products <= cost.products
    assert network.products >= min(cost.products, 4)
    assert network.calls == len(x) * (1 + cost.network_calls)
    network.products = network.calls = 0
    likelihood.evaluate(moments(network, x, 1.0))
    assert network.products <= cost.products + further.products
    assert network.calls == len(x) * (1 + cost.network_calls + further.network_calls)


@every_case
def test_the_density_takes_products_only_where_it_says_so(case):
    """`Posterior.weighed` builds no graph for the others."""
    prior, model, y, x = problem()
    likelihood, network = case.make(model, y), AsNetwork(prior)
    likelihood.log_likelihood(moments(network, x, 1.0))
    assert (network.products > 0) == likelihood.weighs_with_covariance
    if not likelihood.weighs_with_covariance:
        x0 = prior.denoise(x, 1.0)
        bare = Moments(x, torch.ones(len(x), 1, dtype=DOUBLE), x0, prior=prior)
        close(likelihood.log_likelihood(bare),
              likelihood.log_likelihood(moments(prior, x, 1.0)), case)  # fmt: skip


@every_case
@pytest.mark.parametrize("kind", ["image", "complex", "scalar"])
def test_measurements_of_any_shape_and_field(case, kind):
    """Images, and complex values, give the same as the real matrix and vector they stand for."""
    g = torch.Generator().manual_seed(2)
    if kind == "image":
        operator = Blur(gaussian_kernel(0.8, 3).to(DOUBLE), padding="constant")
        matrix = operator(torch.eye(20, dtype=DOUBLE).reshape(20, 1, 4, 5)).reshape(20, 20).T
        y = torch.randn(1, 1, 4, 5, generator=g, dtype=DOUBLE)
        flat, event = y.flatten(1), (1, 4, 5)
    elif kind == "scalar":
        operator, matrix = Identity(), torch.eye(1, dtype=DOUBLE)
        y = torch.randn(1, generator=g, dtype=DOUBLE)
        flat, event = y[:, None], ()
    else:
        A = torch.randn(5, 20, generator=g, dtype=torch.complex128) / 3
        operator = MatrixOperator(A) @ RealToComplex()
        matrix = torch.view_as_real(A).movedim(2, 1).flatten(0, 1)
        y = torch.randn(1, 5, generator=g, dtype=torch.complex128)
        flat, event = torch.view_as_real(y).flatten(1), (20,)
    x = torch.randn(2, *event, generator=g, dtype=DOUBLE)
    n = math.prod(event)
    root = torch.randn(n, n, generator=g, dtype=DOUBLE)
    covariance = root @ root.T / n + 0.1 * torch.eye(n, dtype=DOUBLE)
    shaped = priors.Gaussian(torch.zeros(event, dtype=DOUBLE), covariance)
    plain = priors.Gaussian(torch.zeros(n, dtype=DOUBLE), covariance)
    given = case.make(LinearGaussian(operator, 0.3), y)
    stood_for = case.make(LinearGaussian(MatrixOperator(matrix), 0.3), flat)
    for sigma in (0.03, 0.7):
        a = given.evaluate(moments(shaped, x, sigma))
        b = stood_for.evaluate(moments(plain, x.reshape(2, n), sigma))
        tolerance = max(case.tolerance, 1e-7)
        torch.testing.assert_close(a[0].reshape(2, n), b[0], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(a[1], b[1], rtol=tolerance, atol=tolerance)


@every_case
@pytest.mark.parametrize("sigma", [0.02, 0.5])
def test_unmeasured_entries_of_y_have_no_effect(case, sigma):
    mask = torch.tensor([True, False, True, False, True, True])
    prior, _, _, x = problem()
    model = LinearGaussian(Inpainting(mask), torch.full((6,), 0.1, dtype=DOUBLE))
    y = torch.randn(1, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    a = case.make(model, y).evaluate(moments(prior, x, sigma))
    b = case.make(model, torch.where(mask, y, 77.0)).evaluate(moments(prior, x, sigma))
    rows = MatrixOperator(torch.eye(6, dtype=DOUBLE)[mask])
    c = case.make(LinearGaussian(rows, 0.1), y[:, mask]).evaluate(moments(prior, x, sigma))
    for i in (0, 1):
        assert torch.equal(a[i], b[i])
        close(a[i], c[i], case)


@every_case
def test_single_precision_is_kept(case):
    prior, model, y, x = problem()
    single = LinearGaussian(MatrixOperator(model.operator.matrix.float()), 0.2)
    found = case.make(single, y.float()).evaluate(moments(prior, x.float(), 0.5))
    expected = case.make(model, y).evaluate(moments(prior, x, 0.5))
    for i in (0, 1):
        assert found[i].dtype == torch.float32
        torch.testing.assert_close(found[i].double(), expected[i], rtol=1e-3, atol=1e-3)


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


def test_plug_in_of_a_steep_simulator_does_not_leap():
    """y = x^2 measured finely: a bare gradient step leaves for infinity, a bounded one not."""
    prior = priors.Gaussian(torch.ones(4, dtype=DOUBLE), 1.0)
    model = from_simulator(lambda x: x.square(), Gaussian(0.01), (4,))
    y = torch.full((1, 4), 1.44, dtype=DOUBLE)
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=8, method="dps", steps=100, seed=0)
    assert float((samples.x.abs() - 1.2).abs().max()) < 0.1


@pytest.mark.parametrize(("zeta", "eta", "bounded"), [(0.3, 1.0, True), (50.0, 0.6, False)])
def test_normalized_plug_in_is_the_published_update(zeta, eta, bounded):
    """x_t' <- ancestral(x_t) - zeta grad_{x_t} |y - A D|, where neither bound holds."""
    prior, _, _, _ = problem(size=400, rows=4)
    g = torch.Generator().manual_seed(5)
    model = LinearGaussian(MatrixOperator(torch.eye(400, dtype=DOUBLE)), 0.01)
    y = 3 * torch.randn(1, 400, generator=g, dtype=DOUBLE)
    steps, schedule = 1000, priors.VP()
    t, t_next = torch.tensor([0.5]), torch.tensor([0.499])
    alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
    sigma, sigma_next = float(schedule.sigma(t)), float(schedule.sigma(t_next))
    x_t = torch.randn(2, 400, generator=g, dtype=DOUBLE, requires_grad=True)
    residual = y - prior.denoise(x_t / alpha, sigma)
    (gradient,) = torch.autograd.grad(residual.norm(dim=1).sum(), x_t)
    published = -zeta * gradient  # of x_t' in the schedule's own coordinates

    def lift(m, z):
        return NormalizedPlugIn(
            m, z, zeta=zeta, schedule=schedule, steps=steps, eta=eta, bounded=bounded
        )

    walk, start = inverse.samplers.Ancestral([sigma, sigma_next], eta), (x_t / alpha).detach()
    guided = walk(inverse.condition(prior, model, y, lift=lift), start=start)
    assert torch.allclose(alpha_next * (guided - walk(prior, start=start)), published, rtol=1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "masked", "poisson"])
def test_normalized_plug_in_of_a_curved_model_is_the_published_update(kind):
    """The same of f(x) = x^2, with the plain norm and with that of the paper for counts."""
    prior = priors.Gaussian(torch.full((30,), 3.0, dtype=DOUBLE), 0.5)
    g = torch.Generator().manual_seed(5)
    f, gain = from_simulator(lambda x: x.square(), Gaussian(0.01), (30,)).operator, 0.5
    model = Observation(f, Poisson(gain) if kind == "poisson" else Gaussian(0.01))
    kept = torch.ones(30, dtype=torch.bool)
    if kind == "masked":
        kept[::2] = False
        model = Observation(Inpainting(kept) @ f, Gaussian(0.01))
    y = model.simulate(prior.sample(1, g), g)
    steps, schedule = 1000, priors.VP()
    t, t_next = torch.tensor([0.5]), torch.tensor([0.499])
    alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
    sigma, sigma_next = float(schedule.sigma(t)), float(schedule.sigma(t_next))
    x_t = torch.randn(2, 30, generator=g, dtype=DOUBLE, requires_grad=True)
    r = (y - prior.denoise(x_t / alpha, sigma).square())[:, kept]
    if kind == "poisson":
        r = r / (2 * gain * y.clamp(min=gain)).sqrt()
    (gradient,) = torch.autograd.grad(r.norm(dim=1).sum(), x_t)

    def lift(m, z):
        return NormalizedPlugIn(m, z, zeta=0.3, schedule=schedule, steps=steps, bounded=False)

    walk, start = inverse.samplers.Ancestral([sigma, sigma_next]), (x_t / alpha).detach()
    guided = walk(inverse.condition(prior, model, y, lift=lift), start=start)
    moved = alpha_next * (guided - walk(prior, start=start))
    torch.testing.assert_close(moved, -0.3 * gradient, rtol=2e-3, atol=0)


def test_dps_has_one_answer_for_a_linear_model_and_its_observation():
    prior, model, y, x = problem()
    given = moments(prior, x, 0.7)
    a, b = (
        NormalizedPlugIn(m, y, zeta=0.3, schedule=priors.VP(), steps=100, bounded=False)
        for m in (model, Observation(model.operator, Gaussian(model.sigma)))
    )
    torch.testing.assert_close(a.shift(given), b.shift(given), rtol=1e-9, atol=1e-12)


def lifted_by_dps(operator, noise, **options) -> list:
    model = LinearGaussian(operator, 0.1) if noise is None else Observation(operator, noise)
    shape = (1, 4, 4)
    prior = priors.Gaussian(torch.zeros(shape, dtype=DOUBLE), 1.0)
    y = model.simulate(torch.ones(1, *shape, dtype=DOUBLE))
    recipe = find("dps").recipe(inverse.condition(prior, model, y), 10, **options)
    return list(recipe.prior.likelihoods)


def test_zeta_of_dps_counts_or_is_refused():
    blur, mask = Blur(gaussian_kernel(0.8, 3)), Inpainting(torch.eye(4, dtype=torch.bool))
    phase = PhaseRetrieval()
    square = from_simulator(lambda x: x.square(), Gaussian(0.1), (1, 4, 4)).operator
    for operator, noise in (
        (blur, None), (mask, None), (phase, Gaussian(0.1)), (square, Gaussian(0.1)),
        (square, Poisson()),
    ):  # fmt: skip
        assert lifted_by_dps(operator, noise)[0].zeta == 1.0
        (chosen,) = lifted_by_dps(operator, noise, zeta=0.7, bounded=False)
        assert (chosen.zeta, chosen.bounded) == (0.7, False)
    assert isinstance(lifted_by_dps(square, Laplace(0.1))[0], PlugIn)
    assert not lifted_by_dps(square, Laplace(0.1), bounded=False)[0].bounded
    with pytest.raises(ValueError, match="dps has no use for zeta here"):
        lifted_by_dps(square, Laplace(0.1), zeta=0.3)
    for bad in (0, -1.0, "a", True):
        with pytest.raises(ValueError, match="zeta must be a finite number > 0"):
            lifted_by_dps(blur, None, zeta=bad)


@pytest.mark.parametrize(("network_range", "unit"), [((-1.0, 1.0), 2048.0), ((-1.0, 3.0), 1024.0)])
def test_constants_are_in_units_of_the_network(network_range, unit):
    prior = priors.NetworkPrior(
        lambda x, t: 0.1 * x, "epsilon", (1, 4, 4), data_range=(-1024.0, 3072.0),
        network_range=network_range, sigma_range=(4.0, 8e5),
    )  # fmt: skip
    model = LinearGaussian(Identity(), 20.0)
    both = priors.ClassifierFreeGuidance(prior, prior, 2.0)
    for own in (prior, both):
        posterior = inverse.condition(own, model, torch.zeros(1, 1, 4, 4))
        (lift,) = find("dps").recipe(posterior, 10).prior.likelihoods
        assert lift.unit == unit
        mpgd = find("mpgd").recipe(posterior, 10)
        near = torch.full((1, 1, 1, 1), 1e-6)
        assert float(mpgd.prior.likelihoods[0].mu(near)) == pytest.approx(unit**2)
        assert float(mpgd.sampler.levels[0]) == pytest.approx(unit * float(priors.VP().sigma(1.0)))


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
    with pytest.raises(ValueError, match="must be a finite number > 0"):
        NormalizedPlugIn(model, y, zeta=0.0, schedule=priors.VP(), steps=10)


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
