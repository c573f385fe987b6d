"""Guidance by losses: the corner cases of training-free guidance against the named methods."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import (
    Energy,
    Gaussian,
    Identity,
    Inpainting,
    LinearGaussian,
    from_simulator,
)
from inverse.likelihoods import (
    Cost,
    GaussianLift,
    Moments,
    MonteCarloLift,
    TrainingFree,
    Zero,
)
from inverse.likelihoods.loss_guidance import constant
from inverse.likelihoods.smoothed import fixed_normal
from inverse.recipes import find


def moments(prior: priors.Prior, x: torch.Tensor, sigma: float) -> Moments:
    x0, product = prior.covariance(x, sigma)
    level = torch.full((len(x), *[1] * (x.ndim - 1)), sigma, dtype=x.dtype)
    return Moments(x, level, x0, product, exact=prior.exact_covariance, prior=prior)


def gentle():
    """A problem whose likelihood is so wide that no bound holds."""
    prior, model, y, x = problem()
    return prior, LinearGaussian(model.operator, 40.0), y, x


def by_hand(prior, f, x, sigma):
    """sigma^2 grad_x f(D(x)) and grad_D f(D), by differentiation."""
    at = x.clone().requires_grad_()
    D = prior.denoise(at, sigma)
    (through,) = torch.autograd.grad(f(D).sum(), at, retain_graph=True)
    (u,) = torch.autograd.grad(f(D).sum(), D)
    return sigma**2 * through, u


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_variance_guidance_alone_is_the_score_of_dps(sigma):
    prior, model, y, x = gentle()
    through, _ = by_hand(prior, lambda D: model.log_likelihood(y, D), x, sigma)
    ours = TrainingFree(model, y, rho=constant(1.0))
    given = moments(prior, x, sigma)
    torch.testing.assert_close(ours.shift(given), through, rtol=1e-6, atol=1e-9)
    zero = GaussianLift(model, y, Zero())
    torch.testing.assert_close(ours.shift(given), zero.shift(given), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.log_likelihood(given), zero.log_likelihood(given))
    assert ours.cost == Cost(products=1)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_with_draws_it_is_the_monte_carlo_lift(sigma):
    prior, model, y, x = problem()
    s = 0.8
    lift = MonteCarloLift(model, y, scale=s, draws=10, seed=3)
    ours = TrainingFree(
        model, y, rho=constant(1.0), draws=10, seed=3,
        spread=lambda level: level * s / (level**2 + s**2).sqrt(),
    )  # fmt: skip
    given = moments(prior, x, sigma)
    for a, b in zip(ours.evaluate(given), lift.evaluate(given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_mean_guidance_alone_is_mpgd(sigma):
    prior, model, y, x = gentle()
    _, u = by_hand(prior, lambda D: model.log_likelihood(y, D), x, sigma)
    ours = TrainingFree(model, y, mu=constant(0.7))
    torch.testing.assert_close(ours.shift(moments(prior, x, sigma)), 0.7 * u, rtol=1e-6, atol=1e-9)
    x0 = prior.denoise(x, sigma)
    alone = Moments(x, torch.full((3, 1), sigma, dtype=DOUBLE), x0)  # without the Jacobian
    torch.testing.assert_close(ours.shift(alone), 0.7 * u, rtol=1e-6, atol=1e-9)
    assert not ours.needs_covariance
    assert ours.cost == Cost()


def test_both_are_the_forward_and_backward_guidance_of_universal_guidance():
    prior, model, y, x = gentle()
    sigma, w, mu, steps = 1.3, 2.0, 0.5, 3
    through, _ = by_hand(prior, lambda D: model.log_likelihood(y, D), x, sigma)
    x0 = prior.denoise(x, sigma)
    z = x0.clone()
    for _ in range(steps):
        at = z.clone().requires_grad_()
        (u,) = torch.autograd.grad(model.log_likelihood(y, at).sum(), at)
        z = z + mu * u
    ours = TrainingFree(model, y, rho=constant(w), mu=constant(mu), iterations=steps)
    expected = w * through + z - x0
    torch.testing.assert_close(ours.shift(moments(prior, x, sigma)), expected, rtol=1e-6, atol=1e-9)


def test_relative_guidance_is_the_published_step_of_freedom():
    """x_t' = c1 D + c2 x_t + c3 z - rho g, |g| scaled to rho_scale c1 sigma |eps| (VP)."""
    prior, model, y, x = problem()
    t, t_next, rho = 0.4, 0.39, 0.2
    schedule = priors.VP()
    alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
    sigma, sigma_next = float(schedule.sigma(t)), float(schedule.sigma(t_next))
    at, at_next = alpha**2, alpha_next**2
    x_t = (alpha * x).requires_grad_()
    D = prior.denoise(x_t / alpha, sigma)
    (g,) = torch.autograd.grad(-model.log_likelihood(y, D).sum(), x_t)
    eps = (x_t - alpha * D).detach() / math.sqrt(1 - at)
    c1 = alpha_next * (1 - at / at_next) / (1 - at)
    length = rho * c1 * math.sqrt((1 - at) / at) * eps.norm(dim=1, keepdim=True)
    published = -length * g / g.norm(dim=1, keepdim=True) / alpha_next
    ours = TrainingFree(model, y, rho=constant(rho), relative=True)
    shift = ours.shift(moments(prior, x, sigma))
    # An ancestral step takes the share 1 - sigma'^2 / sigma^2 of x0 + shift.
    moved = (1 - sigma_next**2 / sigma**2) * shift
    torch.testing.assert_close(moved, published, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("part", ["rho", "mu", "both"])
def test_no_step_of_guidance_lowers_the_likelihood(part):
    """Constants a thousand times too large for this noise."""
    prior, model, y, x = problem()
    parts = {
        "rho": constant(1e3) if part != "mu" else None,
        "mu": constant(1e3) if part != "rho" else None,
    }
    ours = TrainingFree(model, y, iterations=5, **parts)
    given = moments(prior, x, 1.0)
    shift, before = ours.evaluate(given)
    after = model.log_likelihood(y, given.x0 + shift)
    assert bool((after > before).all())
    if part == "mu":
        assert float(after.mean()) > float(before.mean()) / 4  # negative: four times nearer


def ring(x):
    """A loss of the caller's own: low on the unit circle."""
    return 5 * (x.square().sum(1) - 1).square()


def test_any_loss_guides():
    prior = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    energy = Energy(ring, (2,))
    posterior = inverse.condition(
        prior, energy, 0, lift=lambda m, y: TrainingFree(m, y, rho=constant(1.0))
    )
    x = inverse.sample(posterior, n=200, steps=50, seed=0, dtype=DOUBLE).x
    free = prior.sample(200, generator=torch.Generator().manual_seed(0))
    assert float(ring(x).mean()) < 0.05 * float(ring(free).mean())
    angle = torch.atan2(x[:, 1], x[:, 0])
    assert float(angle.cos().mean().abs()) < 0.25  # all around the circle


def test_an_energy_is_a_density_without_its_constant():
    energy, x = Energy(ring), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    y = energy.check_measurement(torch.tensor(0))
    assert torch.equal(energy.log_likelihood(y, x), -ring(x))
    assert y.shape == (1,)
    with pytest.raises(TypeError, match="no measurement to simulate"):
        energy.simulate(x)
    with pytest.raises(TypeError, match="must be a function"):
        Energy(3.0)
    with pytest.raises(ValueError, match=r"expected \(3,\)"):
        Energy(lambda x: x.square()).log_likelihood(y, x)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor"):
        Energy(lambda x: 0.0).log_likelihood(y, x)


@pytest.mark.parametrize("relative", [False, True])
def test_a_sample_depends_on_no_batch_mate(relative):
    prior, model, y, x = problem()
    ours = TrainingFree(
        model, y, rho=constant(0.5), mu=constant(0.1), spread=constant(0.2), iterations=2,
        relative=relative,
    )  # fmt: skip
    together = ours.evaluate(moments(prior, x, 0.6))
    for i in range(3):
        alone = ours.evaluate(moments(prior, x[i : i + 1], 0.6))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b[i : i + 1], rtol=1e-10, atol=1e-12)


def test_bad_pairs_are_refused_at_construction():
    _, model, y, _ = problem()
    box = from_simulator(lambda x: x.square(), Gaussian(0.1), (6,), differentiable=False)
    with pytest.raises(TypeError, match="black box"):
        TrainingFree(box, y, rho=constant(1.0))
    with pytest.raises(TypeError, match="black box"):
        TrainingFree(Energy(ring, differentiable=False), y, mu=constant(1.0))
    with pytest.raises(ValueError, match="give rho"):
        TrainingFree(model, y)
    with pytest.raises(ValueError, match="iterations must be"):
        TrainingFree(model, y, mu=constant(1.0), iterations=0)
    mixture = priors.Mixture(torch.eye(2), 0.2, torch.tensor([0.5, 0.5]))
    with pytest.raises(TypeError, match="needs a ForwardModel"):
        TrainingFree(Component(mixture), y, rho=constant(1.0))


NAMES = ("lgd", "mpgd", "dsg", "freedom", "ugd", "tfg", "score-ald", "classifier")
every_method = pytest.mark.parametrize("name", NAMES)
# Those for measurements that are linear: a classifier is none.
every_linear = pytest.mark.parametrize("name", [n for n in NAMES if n != "classifier"])


def published_tfg(prior, model, y, x_t, levels, rho, mu, iterations, spread=0.0, draws=4):
    """Algorithm 1 of the paper in its own coordinates: VP, eta = 0, no recurrences."""
    abar = 1 / (1 + levels**2)
    alpha = abar[:-1] / abar[1:]
    grows = alpha * len(alpha) / alpha.sum()
    for i in range(len(alpha)):
        at, before = float(abar[i]), float(abar[i + 1])
        sigma = float(levels[i])
        noise = fixed_normal(0, torch.full((1, 1), sigma, dtype=DOUBLE), draws, x_t.shape[1:])
        noise = spread * math.sqrt(1 - at) * noise

        def log_f(z, noise=noise):
            parts = [model.log_likelihood(y, z + row) for row in noise]
            return torch.logsumexp(torch.stack(parts), 0) - math.log(len(parts))

        at_x = x_t.clone().requires_grad_()
        x0 = prior.denoise(at_x / math.sqrt(at), sigma)
        (g,) = torch.autograd.grad(log_f(x0).sum(), at_x)
        x0 = x0.detach()
        variance_guidance = rho * float(grows[i]) * g
        mean_guidance = torch.zeros_like(x0)
        for _ in range(iterations):
            z = (x0 + mean_guidance).requires_grad_()
            (g,) = torch.autograd.grad(log_f(z).sum(), z)
            mean_guidance = mean_guidance + mu * float(grows[i]) * g
        eps = (x_t - math.sqrt(at) * x0) / math.sqrt(1 - at)
        x_t = math.sqrt(before) * x0 + math.sqrt(1 - before) * eps
        x_t = x_t + variance_guidance / math.sqrt(at / before) + math.sqrt(before) * mean_guidance
    return x_t


@pytest.mark.parametrize(
    ("rho", "mu", "iterations", "spread"),
    [(1.0, 0.0, 1, 0.0), (0.5, 0.0, 1, 0.3), (0.0, 1.0, 1, 0.0), (0.7, 0.4, 3, 0.01)],
    ids=["dps", "lgd", "mpgd", "tfg"],
)
def test_tfg_is_the_published_algorithm_with_its_corner_cases(rho, mu, iterations, spread):
    prior, model, y, x = gentle()
    options = {"rho": rho, "mu": mu, "iterations": iterations, "spread": spread, "eta": 0.0}
    recipe = find("tfg").recipe(inverse.condition(prior, model, y), 12, **options)
    levels = recipe.sampler.levels
    start = float(levels[0]) * x
    ours = recipe.sampler(recipe.prior, start=start)
    x_t = start / math.sqrt(1 + float(levels[0]) ** 2)
    expected = published_tfg(prior, model, y, x_t, levels, rho, mu, iterations, spread)
    free = published_tfg(prior, model, y, x_t, levels, 0.0, 0.0, 1)
    assert float((expected - free).norm()) > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


def test_ugd_is_the_published_step():
    """eps' = eps - w sqrt(1 - abar) grad_xt log f - sqrt(abar / (1 - abar)) Delta, then DDIM."""
    prior, model, y, x = gentle()
    posterior = inverse.condition(prior, model, y)
    recipe = find("ugd").recipe(posterior, 8, w=2.0, iterations=2, mu=0.5, recurrences=1)
    levels = recipe.sampler.levels
    start = float(levels[0]) * x
    x_t = start / math.sqrt(1 + float(levels[0]) ** 2)
    for sigma, sigma_next in pairwise(levels.tolist()):
        at, before = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        at_x = x_t.clone().requires_grad_()
        x0 = prior.denoise(at_x / math.sqrt(at), sigma)
        (g,) = torch.autograd.grad(model.log_likelihood(y, x0).sum(), at_x)
        x0 = x0.detach()
        eps = (x_t - math.sqrt(at) * x0) / math.sqrt(1 - at) - 2.0 * math.sqrt(1 - at) * g
        delta = torch.zeros_like(x0)
        for _ in range(2):
            z = (x0 + delta).requires_grad_()
            (u,) = torch.autograd.grad(model.log_likelihood(y, z).sum(), z)
            delta = delta + 0.5 * u
        eps = eps - math.sqrt(at / (1 - at)) * delta
        guided = (x_t - math.sqrt(1 - at) * eps) / math.sqrt(at)
        x_t = math.sqrt(before) * guided + math.sqrt(1 - before) * eps
    torch.testing.assert_close(recipe.sampler(recipe.prior, start=start), x_t, rtol=1e-6, atol=1e-8)


def test_mpgd_is_the_published_step():
    """x0 <- x0 - c / sqrt(abar) grad L(x0), eps of the network kept, then DDIM."""
    prior, model, y, x = gentle()
    posterior = inverse.condition(prior, model, y)
    recipe = find("mpgd").recipe(posterior, 8, c=0.6, eta=0.0)
    levels = recipe.sampler.levels
    start = float(levels[0]) * x
    x_t = start / math.sqrt(1 + float(levels[0]) ** 2)
    for sigma, sigma_next in pairwise(levels.tolist()):
        at, before = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        x0 = prior.denoise(x_t / math.sqrt(at), sigma).requires_grad_()
        (u,) = torch.autograd.grad(model.log_likelihood(y, x0).sum(), x0)
        x0 = x0.detach()
        eps = (x_t - math.sqrt(at) * x0) / math.sqrt(1 - at)
        moved = x0 + 0.6 / math.sqrt(at) * u
        x_t = math.sqrt(before) * moved + math.sqrt(1 - before) * eps
    torch.testing.assert_close(recipe.sampler(recipe.prior, start=start), x_t, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("width", [0.5, 127.5])
def test_constants_follow_the_unit_of_the_data(width):
    """The same problem in [0, 1] or [0, 255]: the same images."""

    def draw(h):
        prior = priors.Gaussian(h * torch.ones(3, dtype=DOUBLE), 0.09 * h**2)
        prior.data_range, prior.sigma_range = (0.0, 2 * h), (0.01 * h, 50 * h)
        model = LinearGaussian(Identity((3,)), 5.0 * h)
        y = torch.tensor([[1.2, 0.4, 1.0]], dtype=DOUBLE) * h
        posterior = inverse.condition(prior, model, y)
        return [
            inverse.sample(posterior, n=2, method=name, steps=6, seed=0, **options).x / h
            for name, options in {
                "mpgd": {},
                "tfg": {"spread": 0.0},
                "ugd": {},
                "freedom": {},
                "dsg": {},
            }.items()
        ]

    for a, b in zip(draw(width), draw(1.0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def masked():
    """Half of 64 smooth pixels, sigma_y = 0.05."""
    g = torch.Generator().manual_seed(0)
    rows = torch.arange(8, dtype=DOUBLE)
    smooth = torch.exp(-((rows[:, None] - rows) ** 2) / 4) + 1e-3 * torch.eye(8, dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(1, 8, 8, dtype=DOUBLE), torch.kron(smooth, smooth))
    model = LinearGaussian(Inpainting(torch.rand(8, 8, generator=g) < 0.5), 0.05)
    return prior, model, model.simulate(prior.sample(1, generator=g), generator=g)


@pytest.mark.parametrize(
    ("name", "steps", "high"),
    [
        ("lgd", 100, 2.0), ("mpgd", 100, 1.0), ("dsg", 300, 3.0), ("freedom", 100, 2.0),
        ("ugd", 100, 1.0), ("tfg", 100, 2.0), ("score-ald", 200, 3.0),
    ],
)  # fmt: skip
def test_samples_explain_the_measurement(name, steps, high):
    prior, model, y = masked()
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=4, method=name, steps=steps, seed=0)
    unconditional = float(model.misfit(y, prior.sample(4)).mean())
    residual = sum(samples.diagnostics["residual_sigma"]) / 4
    assert unconditional > 10
    assert residual < high, (residual, unconditional)
    # The pixels nobody measured follow through the prior.
    mean, _ = prior.condition(model, y).moments()
    hidden = ~model.operator.measured.flatten()
    spread = prior.moments()[1].diagonal().sqrt()[hidden]
    error = (samples.x.mean(0) - mean).flatten()[hidden] / spread
    assert float(error.square().mean().sqrt()) < 0.8


def test_mpgd_fits_the_noise_and_takes_no_gradient_of_the_network():
    """Published: x0 is moved towards y, whatever sigma_y is, by the gradient at x0 alone."""
    prior, model, y = masked()
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=4, method="mpgd", seed=0)
    assert samples.diagnostics["network_calls"] == 100
    assert samples.diagnostics["jacobian_products"] == 0
    assert max(samples.diagnostics["residual_sigma"]) < 0.1


@every_linear
def test_calls_are_those_stated(name):
    prior, model, y = masked()
    posterior = inverse.condition(prior, model, y)
    options = {"freedom": {"recurrences": 3, "stage": (0.0, 1.0)}, "tfg": {"recurrences": 3}}
    method = find(name)
    counts = inverse.sample(
        posterior, n=2, method=name, steps=6, seed=0, **options.get(name, {})
    ).diagnostics
    calls = {"freedom": 18, "tfg": 18, "ugd": 12, "score-ald": 19}.get(name, 6)
    assert counts["network_calls"] == calls
    assert (counts["jacobian_products"] > 0) == method.jacobian


@every_linear
def test_a_sample_is_the_same_alone_in_a_batch_and_after_a_restart(name, tmp_path):
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)

    def draw(n, **options):
        return inverse.sample(posterior, n=n, method=name, steps=6, seed=3, **options).x

    four = draw(4)
    assert bool(torch.isfinite(four).all())
    torch.testing.assert_close(draw(2), four[:2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(draw(4, batch=3), four, rtol=1e-9, atol=1e-9)

    class StopError(Exception):
        pass

    def stop(step):
        if step.index == 3:
            raise StopError

    with pytest.raises(StopError):
        draw(4, checkpoint=tmp_path, callback=stop)
    assert torch.equal(draw(4, checkpoint=tmp_path), four)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tfg", {"rho": 0.0, "mu": 3e-4}),
        ("tfg", {"rho": 1e-3, "mu": 0.0}),
        ("ugd", {"w": 0.01, "mu": 1e-4}),
    ],
)
def test_recurrences_raise_the_likelihood(name, options):
    """Guidance too weak for one pass."""
    prior, model, y = masked()
    posterior = inverse.condition(prior, model, y)
    once, often = (
        inverse.sample(
            posterior, n=8, method=name, steps=20, seed=0, recurrences=k, **options
        ).diagnostics["reduced_chi2"]
        for k in (1, 6)
    )
    assert often < 0.75 * once


@pytest.mark.parametrize("name", ["lgd", "mpgd", "freedom", "ugd", "tfg"])
def test_every_method_takes_a_loss(name):
    prior = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    posterior = inverse.condition(prior, Energy(ring), 0)
    samples = inverse.sample(posterior, n=100, method=name, steps=50, seed=0)
    free = prior.sample(100, generator=torch.Generator().manual_seed(0))
    assert float(ring(samples.x).mean()) < 0.2 * float(ring(free).mean())
    assert len(samples.diagnostics["log_likelihood"]) == 100


def test_the_classifier_is_exact_at_scale_one_and_sharper_above():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.5, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    posterior = inverse.condition(mixture, Component(mixture), 0)
    n = 1000
    x = inverse.sample(posterior, n=n, method="classifier", steps=150, seed=0, dtype=DOUBLE).x
    assert bool(((x.mean(0) - means[0]).abs() < 5 * (0.5 / n) ** 0.5 + 0.02).all())
    assert abs(float(x.var(0).mean()) / 0.5 - 1) < 0.15
    sharp = inverse.sample(
        posterior, n=n, method="classifier", steps=150, seed=0, dtype=DOUBLE, scale=5.0
    ).x
    log_p = [mixture.responsibilities(z, 1e-3).log()[:, 0] for z in (x, sharp)]
    assert float(log_p[1].mean()) > float(log_p[0].mean()) / 2  # negative: twice as near to 0
    assert float(sharp.var(0).mean()) < float(x.var(0).mean())


@pytest.mark.parametrize("through", ["plug-in", "monte-carlo", "reverse-runs"])
def test_clean_classifiers_go_through_an_approximation_at_the_same_scale(through):
    """An energy -log p(class | x0) of a logistic classifier."""
    prior = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    logistic = Energy(lambda x: torch.nn.functional.softplus(-3 * x[:, 0]))
    posterior = inverse.condition(prior, logistic, 0)
    shares = []
    for scale in (1.0, 4.0):
        x = inverse.sample(
            posterior, n=200, method="classifier", steps=30, seed=0, scale=scale, through=through
        ).x
        shares.append(float((x[:, 0] > 0).double().mean()))
    z = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    w = torch.sigmoid(3 * z)
    exact = float((w * (z > 0)).sum() / w.sum())
    if through == "plug-in":  # overconfident: it takes the denoised image for the truth
        assert shares[0] > exact + 0.05
    else:
        assert abs(shares[0] - exact) < 0.08
    assert shares[1] > shares[0]
    with pytest.raises(ValueError, match="unknown through"):
        inverse.sample(posterior, method="classifier", through="magic")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mpgd", {"c": -1.0}, "c must be a finite number > 0"),
        ("mpgd", {"eta": 2.0}, r"eta must lie in \[0, 1\]"),
        ("tfg", {"rho": -5.0}, "rho must be a finite number >= 0"),
        ("tfg", {"spread": "a"}, "spread must be a finite number >= 0"),
        ("tfg", {"rho": 0.0, "mu": 0.0}, "must not both be 0"),
        ("tfg", {"draws": 0}, "draws must be an integer >= 1"),
        ("ugd", {"w": -1.0}, "w must be"),
        ("ugd", {"mu": math.nan}, "mu must be"),
        ("ugd", {"recurrences": 1.5}, "recurrences must be an integer"),
        ("freedom", {"rho": -1.0}, "rho must be"),
        ("freedom", {"stage": (0.7, 0.4)}, "stage must be two times"),
        ("dsg", {"ratio": 2.0}, r"ratio must lie in \[0, 1\]"),
        ("dsg", {"eta": "a"}, "eta must be"),
        ("lgd", {"draws": 2.5}, "draws must be an integer"),
        ("score-ald", {"gamma": 0.0}, "gamma must be"),
        ("score-ald", {"steps_per_level": 0}, "steps_per_level must be"),
        ("classifier", {"scale": -1.0}, "scale must be"),
        ("tmpd", {"full": 2.5}, "full must be an integer >= 0"),
        ("tmpd", {"full": -3}, "full must be an integer >= 0"),
        ("unscented", {"directions": 0}, "directions must be an integer >= 1"),
        ("jfps", {"covariance": -1.0}, "covariance must be"),
        ("optimal-covariance", {"jacobian": 1}, "jacobian must be True or False"),
        ("plug-in", {"bounded": 0}, "bounded must be True or False"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_before_a_run(name, options, message):
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    with pytest.raises(ValueError, match=message):
        find(name).recipe(posterior, 10, **options)


def test_a_classifier_is_no_linear_measurement():
    prior, model, y, _ = problem()
    with pytest.raises(ValueError, match=r"no classifier, .* choose dps or mmps"):
        inverse.sample(inverse.condition(prior, model, y), method="classifier")


@pytest.mark.parametrize("name", ["mpgd", "ugd", "tfg", "lgd"])
def test_without_bounds_steps_are_taken_as_they_are(name):
    prior, model, y, x = problem()
    given = moments(prior, x, 1.0)
    free, held = (
        find(name).recipe(inverse.condition(prior, model, y), 10, bounded=bounded).prior.likelihoods
        for bounded in (False, True)
    )
    lengths = [likelihoods[0].shift(given).norm() for likelihoods in (free, held)]
    assert float(lengths[0]) > 1.5 * float(lengths[1])


def test_reverse_runs_sample_a_black_box():
    """y = |x|^2, measured to 0.2, of a standard Gaussian in the plane: a ring, drawn by weights."""
    box = from_simulator(
        lambda x: x.square().sum(1, keepdim=True), Gaussian(0.2), (2,), differentiable=False
    )
    prior = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    posterior = inverse.condition(prior, box, torch.tensor([2.0], dtype=DOUBLE))
    samples = inverse.sample(posterior, n=150, method="reverse-runs", steps=60, seed=0)
    radius = samples.x.norm(dim=1)
    z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    w = box.log_likelihood(torch.tensor([[2.0]], dtype=DOUBLE), z).exp()
    mean = float((w * z.norm(dim=1)).sum() / w.sum())
    spread = float((w * (z.norm(dim=1) - mean).square()).sum() / w.sum()) ** 0.5
    assert float(radius.mean()) == pytest.approx(mean, abs=spread)
    assert float(radius.std()) < 3 * spread
    assert float((samples.x / radius[:, None]).mean(0).norm()) < 0.3  # all around the ring


def test_what_a_method_cannot_sample_is_refused():
    box = from_simulator(lambda x: x.square(), Gaussian(0.1), (6,), differentiable=False)
    prior, _, _, _ = problem()
    blind = inverse.condition(prior, box, torch.ones(1, 6, dtype=DOUBLE))
    for name in NAMES:
        with pytest.raises(ValueError, match="cannot sample this posterior"):
            inverse.sample(blind, method=name)
    curved = from_simulator(lambda x: x.square(), Gaussian(0.1), (6,))
    with pytest.raises(ValueError, match="not linear with Gaussian noise"):
        inverse.sample(
            inverse.condition(prior, curved, torch.ones(1, 6, dtype=DOUBLE)), method="score-ald"
        )
