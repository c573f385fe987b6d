"""Variational methods: fixed points and maps in closed form, their optimisers, what they refuse."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from method_cases import POSTERIORS, Opaque
from problems import DOUBLE, problem

import forward_models as fm
import inverse
import priors
from forward_models import LinearGaussian, MatrixOperator
from inverse.randomness import NoiseStream
from inverse.running import Counted
from inverse.variational import LBFGS, Adam, DFlow, DMPlug, InitialNoise, Misfit, REDDiff
from inverse.variational.d_flow import flow_levels

NAMES = ("red-diff", "dmplug", "d-flow")
every_name = pytest.mark.parametrize("name", NAMES)


def matrix(model) -> torch.Tensor:
    return model.operator.matrix.to(DOUBLE)


# --- RED-diff -------------------------------------------------------------------------------------


class Unit(priors.Prior):
    """A Gaussian of images in [0, 1], as a network of images u = 2 x - 1 would know it."""

    event_shape, data_range, sigma_range, scale = (6,), (0.0, 1.0), (0.005, 60.0), 0.4

    def __init__(self) -> None:
        self.of_u, *_ = problem(seed=4)

    def _denoise(self, x, sigma):
        return (self.of_u.denoise(2 * x - 1, 2 * sigma.flatten()) + 1) / 2


def test_red_diff_is_the_published_update():
    """x_t = a mu + s eps, means of squares and torch's Adam at range [-1, 1], against ours."""
    prior, steps = Unit(), 40
    _, model, _, _ = problem(seed=4)
    A, y = matrix(model), torch.linspace(-1, 1, 4, dtype=DOUBLE)[None]
    posterior = inverse.condition(prior, LinearGaussian(model.operator, 0.01), y)
    levels = inverse.recipes.find("red-diff").recipe(posterior, steps).sampler.levels
    stream = NoiseStream(5, range(2), (6,), DOUBLE)
    start = Misfit(posterior, stream.normal(0)).estimate
    mu = (2 * start - 1).requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99))
    for k in range(steps):
        inverse_snr = 2 * levels[k]
        a = 1 / (1 + inverse_snr**2).sqrt()
        s, z = a * inverse_snr, stream.normal(k + 1)
        x_t = (a * mu + s * z).detach()
        eps = (x_t - a * prior.of_u.denoise(x_t / a, float(s / a))) / s
        residual = 2 * y - A.sum(1) - mu @ A.T
        loss = 0.25 * inverse_snr * ((eps - z) * mu).mean(1) + residual.square().mean(1) / 2
        adam.zero_grad()
        (6 * loss.sum()).backward()
        adam.step()
    found = inverse.sample(posterior, n=2, method="red-diff", steps=steps, seed=5)
    torch.testing.assert_close(found.x, (mu.detach() + 1) / 2, atol=1e-10, rtol=1e-10)


def fixed_point(prior, model, y, levels, weight):
    """mu at which all levels together pull as much as the data, for a Gaussian prior."""
    A, (m, C) = matrix(model), prior.moments()
    n, eye = len(m), torch.eye(len(m), dtype=DOUBLE)
    pull = sum(s**2 * torch.linalg.inv(C + s**2 * eye) for s in levels) / len(levels)
    data = n / len(A) * A.T
    return m + torch.linalg.solve(data @ A + weight * pull, data @ (y[0] - A @ m))


def test_the_levels_of_red_diff_balance_at_its_fixed_point():
    """The mean of the gradients over all levels is 0 there; exact, as they are affine in eps."""
    prior, model, y, x = problem()
    posterior = inverse.condition(prior, model, y)
    levels = [9.0, 3.0, 1.0, 0.4, 0.05]
    method = REDDiff([*levels, 0.0], weight=0.7)
    mu = fixed_point(prior, model, y, levels, 0.7).expand(3, -1)
    misfit = Misfit(posterior, x)

    def force(mu):
        looks = [
            method._look(misfit, mu, k, sign * x).gradient for k in range(5) for sign in (1, -1)
        ]
        return torch.stack(looks).mean(0)

    assert force(mu).abs().max() < 1e-10
    assert force(mu + 0.1).abs().max() > 0.01


def test_red_diff_at_one_level_seeks_the_mode_of_a_tempered_posterior():
    """p(y | mu) N(mu; m, C + sigma^2)^kappa, kappa = weight (m / n) (sigma / sigma_y)^2."""
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    A, (m, C) = matrix(model), prior.moments()
    sigma, sigma_y, weight, steps = 0.6, float(model.sigma), 0.25, 500
    kappa = weight * 4 / 6 * (sigma / sigma_y) ** 2
    precision = kappa * torch.linalg.inv(C + sigma**2 * torch.eye(6, dtype=DOUBLE))
    information = A.T @ A / sigma_y**2
    mode = m + torch.linalg.solve(information + precision, A.T @ (y[0] - A @ m) / sigma_y**2)
    levels = torch.linspace(1 + 1e-9, 1 - 1e-9, steps + 1, dtype=DOUBLE) * sigma
    method = REDDiff(levels, rate=0.02)
    states = []
    method(
        posterior, 100, seed=1, dtype=DOUBLE,
        keep=lambda k, state: states.append(state["x"]) if k > 300 else None,
    )  # fmt: skip
    path = torch.stack(states).mean(0)
    error = (path.mean(0) - mode) / (path.std(0) / math.sqrt(len(path)))
    assert error.abs().max() < 5
    exact = prior.condition(model, y).moments()[0]
    assert ((exact - mode) / (path.std(0) / 10)).abs().max() > 20


def two_modes():
    means = torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=DOUBLE)
    prior = priors.Mixture(means, 0.2, torch.tensor([0.5, 0.5], dtype=DOUBLE))
    model = LinearGaussian(MatrixOperator(torch.tensor([[0.0, 1.0]], dtype=DOUBLE)), 0.3)
    return inverse.condition(prior, model, torch.tensor([0.5], dtype=DOUBLE))


def test_red_diff_lands_in_one_mode_with_little_spread():
    """The exact posterior has two, each as wide as its component."""
    found = inverse.sample(two_modes(), n=60, method="red-diff", steps=600, seed=0)
    exact = inverse.sample(two_modes(), n=60, method="exact", seed=0)
    assert found.weights is None
    for x, widest in ((found.x, 0.5), (exact.x, 2.0)):
        right = x[x[:, 0] > 0]
        assert 10 < len(right) < 50
        assert (right[:, 0].mean() - 3).abs() < 0.25
        spread = right.std(0) / torch.tensor([0.2**0.5, (0.2 * 0.09 / 0.29) ** 0.5], dtype=DOUBLE)
        assert spread.max() < widest
        assert (widest == 2.0) == bool(spread.min() > 0.6)
    assert found.std[1] < 0.05  # where y sees


# --- The maps of DMPlug and D-Flow ----------------------------------------------------------------


def maps(steps: int = 200) -> dict[str, InitialNoise]:
    return {
        "dmplug": DMPlug([9.0, 1.5, 0.05, 0.0], steps, rate=0.1),
        "dmplug-recomputed": DMPlug([9.0, 1.5, 0.05, 0.0], steps, rate=0.1, recompute=True),
        "d-flow": DFlow(flow_levels(3, 60.0), steps, penalty=0, recompute=False),
        "d-flow-recomputed": DFlow(flow_levels(3, 60.0), steps, penalty=0),
    }


every_map = pytest.mark.parametrize("name", maps())


def last_state(method, posterior, n):
    kept = {}
    method(posterior, n, seed=0, dtype=DOUBLE, keep=lambda k, state: kept.update(state))
    return kept


def affine(method, prior):
    """(B, c) of F(z) = B z + c."""
    c = method.generate(prior, torch.zeros(1, 6, dtype=DOUBLE))
    return (method.generate(prior, torch.eye(6, dtype=DOUBLE)) - c).T, c[0]


@every_map
def test_the_gradient_through_the_map_agrees_with_finite_differences(name):
    posterior = POSTERIORS["curved"]()
    method = maps()[name]
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    misfit = Misfit(posterior, z)
    look = method._look(misfit, z, 0, z)
    for direction in torch.eye(6, dtype=DOUBLE)[:3]:
        up, down = (method._look(misfit, z + h * direction, 0, z).loss for h in (1e-5, -1e-5))
        torch.testing.assert_close(
            look.gradient @ direction, (up - down) / 2e-5, atol=1e-6, rtol=1e-6
        )
    torch.testing.assert_close(look.x, method.generate(posterior.prior, z))


@every_map
def test_the_map_of_a_gaussian_prior_is_affine_and_its_fit_exact(name):
    """Four data of six values can all be met: no residual is left, and x lies in F's range."""
    prior, model, y, _ = problem()
    posterior = inverse.condition(Opaque(prior), model, y)
    method = maps(steps=600 if name.startswith("dmplug") else 40)[name]
    B, c = affine(method, posterior.prior)
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    torch.testing.assert_close(method.generate(posterior.prior, z), z @ B.T + c)
    state = last_state(method, posterior, 3)
    x = state["x"]
    assert model.residual(y, x).abs().max() < 1e-6
    theta = state["base" if name.startswith("d-flow") else "theta"]
    torch.testing.assert_close(x, theta @ B.T + c, atol=1e-6, rtol=0)


def test_d_flow_solves_the_flow():
    """F tends to a Gaussian's transport, C^(1/2) z + m, at order 2 or better; z_y undoes it."""
    C = torch.diag(torch.tensor([4.0, 1.0, 0.3, 0.1, 0.05, 0.02], dtype=DOUBLE))
    prior = priors.Gaussian(torch.linspace(-1, 1, 6, dtype=DOUBLE), C)
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    exact = prior.moments()[0] + z * C.diagonal().sqrt()
    errors = []
    for steps in (20, 40):
        method = DFlow(flow_levels(steps, 1e5), 1, recompute=False)
        errors.append(float((method.generate(prior, z) - exact).abs().max()))
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] > 3.5
    model = LinearGaussian(MatrixOperator(torch.eye(6, dtype=DOUBLE)), 1e-3)
    posterior = inverse.condition(prior, model, exact[:1])
    method = DFlow(flow_levels(40, prior.sigma_range[1]), 1, blend=1.0, recompute=False)
    start = method._start(Misfit(posterior, z[:1]), z[:1])
    torch.testing.assert_close(start, z[:1], atol=2e-2, rtol=0)


def test_d_flow_ends_where_likelihood_and_norm_balance():
    """B^T A^T (y - A x) / sigma_y^2 = penalty (1 - (d - 1) / |z|^2) z."""
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    excess = []
    for penalty in (1.0, 30.0):
        method = DFlow(flow_levels(3, 60.0), 80, penalty=penalty, recompute=False)
        B, c = affine(method, prior)
        state = last_state(method, posterior, 4)
        x, z = state["x"], state["base"]
        torch.testing.assert_close(x, z @ B.T + c)
        data = model.residual(y, x) @ matrix(model) @ B / model.sigma**2
        radial = penalty * (1 - 5 / z.square().sum(1, keepdim=True)) * z
        torch.testing.assert_close(data, radial, atol=1e-5, rtol=1e-5)
        excess.append(float((z.square().sum(1) - 5).abs().max()))
    assert excess[1] < excess[0] / 2  # a strong penalty holds the norm


def test_recomputing_changes_the_cost_and_nothing_else():
    posterior = POSTERIORS["opaque"]()
    found = {
        again: inverse.sample(
            posterior, n=2, method="d-flow", steps=5, seed=0, ode=3, recompute=again
        )
        for again in (False, True)
    }
    torch.testing.assert_close(found[True].x, found[False].x)
    assert found[False].diagnostics["network_calls"] == 5 * 6 + 6
    assert found[True].diagnostics["network_calls"] == 2 * 5 * 6 + 6
    assert {f.diagnostics["jacobian_products"] for f in found.values()} == {5 * 6}


def test_products_are_counted_where_a_gradient_passes_the_network():
    prior = Counted(POSTERIORS["opaque"]().prior)
    x = torch.zeros(1, 6, dtype=DOUBLE, requires_grad=True)
    out = prior.denoise(prior.denoise(x, 1.0), 0.5)
    assert (prior.network_calls, prior.jacobian_products) == (2, 0)
    out.sum().backward()
    assert (prior.network_calls, prior.jacobian_products) == (2, 2)


# --- Optimisers -----------------------------------------------------------------------------------


def minimise(optimiser, function, theta, steps):
    state = optimiser.start(theta)
    for k in range(steps):
        leaf = state["theta"].detach().requires_grad_()
        loss = function(leaf)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        state = {**state, **optimiser.step(state, k, loss.detach(), gradient)[0]}
    return state


def rosenbrock(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def test_lbfgs_solves_what_gradients_do_not():
    start = torch.tensor([[-1.2, 1.0, 0.5], [0.0, 0.0, 0.0], [2.0, -1.0, 3.0]], dtype=DOUBLE)
    found = minimise(LBFGS(), rosenbrock, start, 150)
    torch.testing.assert_close(found["base"], torch.ones_like(start), atol=1e-6, rtol=0)
    slow = minimise(Adam(0.01), rosenbrock, start, 150)
    assert (slow["theta"] - 1).abs().max() > 0.1


def test_lbfgs_never_goes_up_nor_where_the_loss_is_no_number():
    start = torch.tensor([[3.0, 3.0], [0.5, 0.2]], dtype=DOUBLE)
    walled = lambda x: rosenbrock(x) + torch.where(x[:, :1] > 0.6, torch.nan, 0.0).sum(1)  # noqa: E731
    state, losses = LBFGS().start(start[1:]), []
    for k in range(60):
        leaf = state["theta"].detach().requires_grad_()
        loss = walled(leaf)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        state = {**state, **LBFGS().step(state, k, loss.detach(), gradient)[0]}
        losses.append(float(state["loss"]))
    assert all(b <= a for a, b in pairwise(losses))
    assert state["base"][0, 0] <= 0.6
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("optimiser", [LBFGS(), Adam(0.1)], ids=["lbfgs", "adam"])
def test_a_sample_does_not_depend_on_its_batch_mates(optimiser):
    start = torch.tensor([[-1.2, 1.0], [0.1, 0.0], [2.0, -1e4]], dtype=DOUBLE)
    together = minimise(optimiser, rosenbrock, start, 25)
    for i in range(3):
        alone = minimise(optimiser, rosenbrock, start[i : i + 1], 25)
        torch.testing.assert_close(together["theta"][i], alone["theta"][0], rtol=1e-9, atol=1e-12)


# --- What is measured -----------------------------------------------------------------------------


def gradient_of(misfit, x0):
    leaf = x0.detach().requires_grad_()
    return torch.autograd.grad(misfit(leaf).sum(), leaf)[0]


@pytest.mark.parametrize("sigma", [1e-3, 0.2])
def test_the_loss_of_white_noise_holds_no_sigma(sigma):
    prior, model, y, x = problem()
    posterior = inverse.condition(prior, LinearGaussian(model.operator, sigma), y)
    expected = 6 / 4 * (x @ matrix(model).T - y) @ matrix(model)
    torch.testing.assert_close(gradient_of(Misfit(posterior, x), x), expected)


def test_the_loss_weighs_data_by_their_noise_and_leaves_out_what_is_not_measured():
    prior, _, _, x = problem()
    sigma = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], dtype=DOUBLE)
    mask = torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool)
    y = torch.linspace(0, 1, 6, dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(1, 1, 6, dtype=DOUBLE), 1.0)
    model = LinearGaussian(fm.Inpainting(mask[None]), sigma[None, None])
    posterior = inverse.condition(prior, model, y[None, None])
    precision = mask / sigma**2
    expected = 6 / precision.sum() * precision * (x - y)
    x = x.reshape(3, 1, 1, 6)
    torch.testing.assert_close(gradient_of(Misfit(posterior, x), x), expected.reshape(x.shape))


def test_several_kinds_of_measurement_and_counts():
    """Photons are weighed by their information at the first image, in one unit with the rest."""
    prior, model, y, _ = problem()
    photons = fm.from_simulator(lambda x: 30 * x.exp(), fm.Poisson(1.0), (6,))
    counts = torch.full((1, 6), 40.0, dtype=DOUBLE)
    for posterior in (
        inverse.condition(Opaque(prior), photons, counts),
        inverse.condition(Opaque(prior), model, y).given(photons, counts),
    ):
        for name in NAMES:
            found = inverse.sample(posterior, n=2, method=name, steps=30, seed=0)
            assert found.x.isfinite().all()


def test_the_first_image_is_the_pseudo_inverse_damped_by_the_noise():
    prior, model, y, x = problem()
    m, A = prior.moments()[0], matrix(model)
    sharp = inverse.condition(prior, LinearGaussian(model.operator, 1e-7), y)
    expected = m + torch.linalg.pinv(A) @ (y[0] - A @ m)
    torch.testing.assert_close(Misfit(sharp, x).estimate[0], expected)
    loud = inverse.condition(prior, LinearGaussian(model.operator, 1e4), y)
    torch.testing.assert_close(Misfit(loud, x).estimate[0], m, atol=1e-5, rtol=0)


def test_nothing_is_solved_where_no_first_image_is_asked_for(monkeypatch):
    posterior = POSTERIORS["opaque"]()

    def solve(*_, **__):
        raise AssertionError("solved")

    monkeypatch.setattr(MatrixOperator, "solve", solve)
    for name, options in (("dmplug", {}), ("d-flow", {"blend": 0.0})):
        inverse.sample(posterior, n=1, method=name, steps=2, seed=0, **options)
    with pytest.raises(AssertionError, match="solved"):
        inverse.sample(posterior, n=1, method="red-diff", steps=2, seed=0)


@every_name
def test_tiny_noise_and_seed_zero(name):
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, LinearGaussian(model.operator, 1e-6), y)
    draws = [
        inverse.sample(posterior, n=2, method=name, steps=20, seed=seed).x for seed in (0, 0, 1)
    ]
    assert draws[0].isfinite().all()
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])


class LinearDecoder:
    """Images (1, 2, 3) of four latents."""

    W = torch.randn(4, 6, generator=torch.Generator().manual_seed(20), dtype=DOUBLE)

    def decode(self, z):
        return (z.flatten(1) @ self.W.to(z)).reshape(-1, 1, 2, 3)


@every_name
def test_latents_are_optimised_through_their_decoder(name):
    latents = priors.Gaussian(torch.zeros(1, 2, 2, dtype=DOUBLE), 1.0)
    prior = priors.LatentPrior(latents, LinearDecoder(), image_range=(0.0, 10.0))
    truth = prior.decode(prior.prior.sample(1, generator=torch.Generator().manual_seed(3)))
    model = LinearGaussian(fm.Inpainting(torch.ones(2, 3, dtype=torch.bool)), 0.5)
    posterior = inverse.condition(prior, model, truth)
    options = {"seed": 0, "steps": 40 if name == "d-flow" else 300}
    options |= {"rate": 0.1} if name == "dmplug" else {}
    found = inverse.sample(posterior, n=2, method=name, **options)
    assert found.latents.shape == (2, *prior.event_shape)
    assert max(found.diagnostics["residual_sigma"]) < 2
    assert found.diagnostics["steps"] == options["steps"]


@every_name
def test_a_clean_classifier_is_followed_and_a_noisy_one_refused(name):
    operator = MatrixOperator(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=DOUBLE))
    model = fm.Observation(operator, fm.Categorical(2))
    means = torch.tensor([[-3.0, 0.0], [3.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    posterior = inverse.condition(Opaque(mixture), model, torch.tensor(1))
    options = {"seed": 0, "steps": 40 if name == "d-flow" else 300}
    options |= {"rate": 0.1} if name == "dmplug" else {}
    found = inverse.sample(posterior, n=3, dtype=DOUBLE, method=name, **options)
    assert (found.x[:, 0] < -1).all()
    with pytest.raises(ValueError, match=r"Component is of noisy images.*Methods that can"):
        inverse.sample(POSTERIORS["classes"](), method=name)


@every_name
def test_samplers_and_absorption_are_refused(name):
    posterior = POSTERIORS["linear"]()
    with pytest.raises(ValueError, match="optimises a clean image"):
        inverse.sample(posterior, method=name, absorb=True)
    sampler = inverse.samplers.Heun(priors.geometric(4, posterior.sigma_range))
    with pytest.raises(ValueError, match="leave out the sampler"):
        inverse.sample(posterior, method=name, sampler=sampler)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: REDDiff([1.0, 0.0], weight=0.0), "weight"),
        (lambda: REDDiff([1.0, 0.0], rate=-1.0), "rate"),
        (lambda: REDDiff([0.0, 1.0]), "decrease"),
        (lambda: Adam(0.1, (0.9, 1.0)), "betas"),
        (lambda: LBFGS(memory=0), "memory"),
        (lambda: DMPlug([1.0, 0.5], 3), "last level of 0"),
        (lambda: DMPlug([1.0, 0.0], 0), "steps"),
        (lambda: DFlow([1.0, 0.0], 3, penalty=-1), "penalty"),
        (lambda: DFlow([1.0, 0.0], 3, blend=2.0), "blend"),
        (lambda: inverse.sample(POSTERIORS["linear"](), method="dmplug", ddim=1), "ddim"),
        (
            lambda: inverse.sample(POSTERIORS["linear"](), method="d-flow", ode=0),
            "steps of the map",
        ),
        (lambda: REDDiff([1.0, 0.0])(POSTERIORS["linear"](), 2, indices=[0]), "indices"),
    ],
)
def test_options_out_of_range_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
