"""Faults found in other libraries of the field, and that they are absent here: one test a fault."""

from __future__ import annotations

import inspect
import subprocess
import sys
import weakref
from functools import cache
from pathlib import Path

import pytest
import torch
from method_cases import Opaque
from problems import DOUBLE, problem
from splitting_laws import law
from test_sampling import mask_problem
from torch.utils._python_dispatch import TorchDispatchMode

import inverse
import priors
from forward_models import (
    FanBeam,
    Identity,
    Inpainting,
    LinearGaussian,
    LinearOperator,
    MatrixOperator,
    Observation,
    Poisson,
    Tomography,
)
from inverse.likelihoods import DiagonalTweedie, GaussianLift, Likelihood, Moments
from inverse.recipes import find
from inverse.samplers import DivergenceError, Sampler
from priors import Prior

ROOT = Path(__file__).parent.parent
VARIANCES = torch.linspace(0.3, 1.5, 6, dtype=DOUBLE)


class Saved:
    """A tensor that a network keeps for its backward pass."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Spy(torch.nn.Module):
    """The score of N(0, diag(VARIANCES)) + noise, as a network that watches what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.variances = torch.nn.Parameter(VARIANCES.clone(), requires_grad=False)
        self.images = self.backward_passes = self.kept = 0
        self.with_grad: set[bool] = set()
        self.saved: list[weakref.ref[Saved]] = []

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        self.with_grad.add(torch.is_grad_enabled())
        self.saved = [ref for ref in self.saved if ref() is not None]
        self.kept = max(self.kept, len(self.saved))
        with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda saved: saved.tensor):
            score = -x / (self.variances + sigma.reshape(-1, 1) ** 2)
        if score.requires_grad:
            score.register_hook(self.differentiated)
        return score

    def keep(self, tensor: torch.Tensor) -> Saved:
        saved = Saved(tensor)
        self.saved.append(weakref.ref(saved))
        return saved

    def differentiated(self, gradient: torch.Tensor) -> None:
        self.backward_passes += 1


def network_posterior(network: Spy, sigma: float = 0.2, top: float = 20.0):
    _, model, y, _ = problem()
    prior = priors.NetworkPrior(network, "score", (6,), sigma_range=(0.02, top))
    return inverse.condition(prior, LinearGaussian(model.operator, sigma), y)


METHODS = [m.name for m in inverse.methods(network_posterior(Spy()))]
every_method = pytest.mark.parametrize("name", METHODS)


@cache
def spied(name: str):
    """One run, and the network that saw it."""
    network = Spy()
    samples = inverse.sample(network_posterior(network), n=3, method=name, steps=4, seed=0)
    return network, samples


# --- what is sampled ------------------------------------------------------------------------------


@every_method
def test_no_method_ignores_the_measurement_by_its_defaults(name):
    """deepinv's DPS leaves 0.96 of the residual of unconditional draws."""
    prior, model, y = mask_problem()
    image = Inpainting(model.operator.mask, channels=1)
    posterior = inverse.condition(Opaque(prior), LinearGaussian(image, 0.05), y)
    free = model.misfit(y, prior.sample(64, generator=torch.Generator().manual_seed(5))).mean()
    steps = 2 if name in ("d-flow", "sitcom") else 30  # each of many network calls
    try:
        x = inverse.sample(posterior, n=4, method=name, steps=steps, seed=0).x
    except DivergenceError:
        assert name == "plug-in"
        return
    share = float(model.misfit(y, x).mean() / free)
    assert share < 0.8
    if find(name).asks in ("adjoint", "SVD") or name in ("mmps", "dps"):
        assert share < 0.2


@every_method
def test_statistics_are_of_final_samples_alone(name):
    """Elsewhere means and variances count the image that a chain starts from."""
    posterior, ends = network_posterior(Spy()), []
    samples = inverse.sample(
        posterior, n=3, method=name, steps=4, seed=0, callback=lambda step: ends.append(step.x)
    )
    shares = torch.full((3,), 1 / 3) if samples.weights is None else samples.weights
    assert samples.x.shape == (3, 6)
    torch.testing.assert_close(samples.x, ends[-1])
    mean = (shares.double()[:, None] * ends[-1]).sum(0)
    torch.testing.assert_close(samples.mean, mean)
    squares = (shares.double()[:, None] * (ends[-1] - mean).square()).sum(0)
    variance = squares / (1 - shares.double().square().sum())
    torch.testing.assert_close(samples.std, variance.sqrt())


@every_method
def test_vanishing_noise_never_gives_numbers_that_are_not_finite(name):
    """deepinv's samplers return NaN at sigma_y = 0 and say nothing; 0 itself is refused here."""
    try:
        posterior = network_posterior(Spy(), sigma=1e-6)
        samples = inverse.sample(posterior, n=3, method=name, steps=4, seed=0)
    except DivergenceError:  # which says where, and what to do
        return
    assert bool(samples.x.isfinite().all())
    assert float(samples.x.abs().max()) < 40


@every_method
def test_seed_zero_is_kept(name):
    """`if seed:` takes 0 for no seed, in deepinv."""
    first, second, none = (
        inverse.sample(network_posterior(Spy()), n=2, method=name, steps=2, seed=seed).x
        for seed in (0, 0, None)
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, none)


@every_method
def test_measurements_of_several_shapes_are_one_measurement(name):
    """Stacked measurements crash deepinv's samplers; here they give what their one matrix gives."""
    prior, model, y, _ = problem()
    A = model.operator.matrix
    whole = inverse.condition(Opaque(prior), LinearGaussian(MatrixOperator(A), 0.2), y)
    stacked = inverse.condition(
        Opaque(prior), LinearGaussian(MatrixOperator(A[:1]), 0.2), y[:, :1]
    ).given(LinearGaussian(MatrixOperator(A[1:]), 0.2), y[:, 1:])
    if find(name).refusal(stacked):
        assert find(name).asks == "SVD"  # which a stack has not in closed form
        return
    one, other = (
        inverse.sample(posterior, n=2, method=name, steps=3, seed=0).x
        for posterior in (whole, stacked)
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
def test_slices_that_are_not_square_are_sampled(geometry):
    """deepinv's tomography takes square images alone."""
    angles = [0.0, 40.0, 100.0, 150.0]
    if geometry == "parallel":
        operator: LinearOperator = Tomography((4, 7), angles)
    else:
        operator = FanBeam((4, 7), angles, source_origin=20, source_detector=33)
    prior = priors.Gaussian(torch.zeros(1, 4, 7, dtype=DOUBLE), 0.7)
    g = torch.Generator().manual_seed(0)
    truth, x = prior.sample(2, generator=g), 3 * prior.sample(2, generator=g)
    model = LinearGaussian(operator, 0.5)
    y = model.simulate(truth, generator=g)
    A = operator(torch.eye(28, dtype=DOUBLE).reshape(28, 1, 4, 7)).flatten(1).T
    sigma, v = 2.0, 0.7 * 4 / (0.7 + 4)  # Cov[x0 | x] = v I, E[x0 | x] = v x / sigma^2
    precision = A.T @ A / 0.25 + torch.eye(28, dtype=DOUBLE) / v
    expected = (y.flatten(1) @ A / 0.25 + x.flatten(1) / sigma**2) @ torch.linalg.inv(precision)
    recipe = find("mmps").recipe(inverse.condition(prior, model, y), 10)
    torch.testing.assert_close(recipe.prior.denoise(x, sigma).flatten(1), expected)


def test_noise_that_is_not_gaussian_is_not_taken_for_none():
    """deepinv's samplers take any noise but Gaussian noise for sigma_y = 0."""
    prior = Opaque(priors.Gaussian(torch.full((6,), 4.0, dtype=DOUBLE), 0.3))
    model = Observation(Identity((6,)), Poisson(gain=0.5))
    y = torch.arange(6, dtype=DOUBLE)[None]
    posterior = inverse.condition(prior, model, y)
    for method in inverse.methods():
        if method.asks in ("closed form", "SVD", "adjoint"):
            assert method.refusal(posterior), method.name
    x = 1 + torch.rand(2, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Poisson(x / 0.5).log_prob(y / 0.5).sum(1)
    difference = posterior.log_clean(x) - expected
    torch.testing.assert_close(difference[0], difference[1])
    assert torch.allclose(posterior.log_clean(x).diff(), expected.diff())


# --- solves and covariances -----------------------------------------------------------------------


def test_an_image_is_solved_for_as_one_vector():
    """azula's MMPS contracts the last axis alone: an image-shaped y is solved row by row."""
    g = torch.Generator().manual_seed(0)
    root = torch.randn(48, 48, generator=g, dtype=DOUBLE)
    eye = torch.eye(48, dtype=DOUBLE)
    C = root @ root.T / 48 + 0.1 * eye
    prior = Opaque(priors.Gaussian(torch.zeros(2, 4, 6, dtype=DOUBLE), C))
    y, x = torch.randn(2, 2, 2, 4, 6, generator=g, dtype=DOUBLE).unbind()
    posterior = inverse.condition(prior, LinearGaussian(Identity((2, 4, 6)), 0.3), y[:1])
    x0, shift = find("mmps").recipe(posterior, 10).prior.guided(x, 1.0)
    cov = C @ torch.linalg.inv(C + eye)
    K = cov + 0.09 * eye
    for i in range(2):
        r = (y[0] - x0[i]).flatten()
        basis = torch.stack([r, K @ r, K @ K @ r], 1)  # of the three iterations
        v = basis @ torch.linalg.lstsq(K @ basis, r[:, None]).solution[:, 0]
        torch.testing.assert_close(shift[i].flatten(), cov @ v, rtol=1e-6, atol=1e-8)


def test_mmps_has_the_covariance_of_the_posterior_by_its_defaults():
    """One iteration of azula's solver leaves errors of 10 to 17 % where three are exact."""
    g = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(33, 33, generator=g, dtype=DOUBLE)).Q
    spectrum = torch.tensor([0.1, 0.6, 2.0], dtype=DOUBLE).repeat(11)  # three different values
    C = Q * spectrum @ Q.T
    prior = Opaque(priors.Gaussian(torch.zeros(33, dtype=DOUBLE), C))
    model = LinearGaussian(Identity((33,)), 0.5)
    y = torch.randn(1, 33, generator=g, dtype=DOUBLE)
    posterior = inverse.condition(prior, model, y)
    assert posterior.prior.exact_covariance is False
    expected = torch.linalg.inv(torch.linalg.inv(C) + 4 * torch.eye(33, dtype=DOUBLE))
    recipe = find("mmps").recipe(posterior, 50)
    mean, covariance = law(recipe.sampler, recipe.prior)
    # Of 50 steps; the solve itself leaves nothing.
    assert float((covariance - expected).norm() / expected.norm()) < 0.03
    assert float((mean - (expected @ (4 * y[0]))).norm() / mean.norm()) < 0.03


@pytest.mark.parametrize("full", [64, 0])
def test_tmpd_is_stable_for_dense_matrices(full):
    """azula's TMPD diverges for a dense A, of which row sums cancel."""
    g = torch.Generator().manual_seed(2)
    A = torch.randn(40, 50, generator=g, dtype=DOUBLE)
    root = torch.randn(50, 50, generator=g, dtype=DOUBLE)
    C = root @ root.T / 50 + 0.05 * torch.eye(50, dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(50, dtype=DOUBLE), C)
    model = LinearGaussian(MatrixOperator(A), 0.3)
    y = model.simulate(prior.sample(1, generator=g), generator=g)
    posterior = inverse.condition(Opaque(prior), model, y)
    samples = inverse.sample(posterior, n=20, method="tmpd", steps=60, seed=0, full=full)
    free = model.misfit(y, prior.sample(20, generator=g)).mean()
    assert float(model.misfit(y, samples.x).mean()) < 0.5 * float(free)
    size = samples.x.square().mean().sqrt() / C.diagonal().mean().sqrt()
    assert 0.5 < float(size) < 1.5


def test_row_sums_below_zero_never_count_as_less_than_the_noise():
    """A diagonal covariance of row sums can be negative; azula's has no guard and diverges."""
    A = torch.tensor([[1.0, 0.0], [-3.0, 0.1], [0.5, 2.0]], dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    x = torch.ones(1, 2, dtype=DOUBLE)
    sums = 0.5 * (A @ A.T).sum(1)  # Cov[x0 | x] = 0.5 I at sigma = 1
    assert float((0.09 + sums).min()) < 0
    lift = GaussianLift(
        LinearGaussian(MatrixOperator(A), 0.3), torch.zeros(1, 3, dtype=DOUBLE), DiagonalTweedie()
    )
    x0, product = prior.covariance(x, 1.0)
    level = torch.ones(1, 1, dtype=DOUBLE)
    given = Moments(x, level, x0, product, True, prior)
    r = lift.measured.residual(x0)
    found = lift.assumed.solve(given, lift.measured, r, True)
    torch.testing.assert_close(found.v, r / (0.09 + sums.clamp(min=0)))


SCHEDULED = {
    "VE": ("score", priors.VE()),
    "VP": ("epsilon", priors.VP()),
    "cosine": ("v", priors.Cosine()),
    "flow": ("flow", priors.Flow()),
}


def scheduled(parametrization: str, schedule: priors.Schedule) -> Prior:
    """N(0, diag(VARIANCES)) by a network of this kind."""

    def network(x_t, time):
        sigma = schedule.sigma(time).reshape(-1, 1)
        alpha = schedule.alpha(time).reshape(-1, 1)
        x = x_t / alpha
        x0 = VARIANCES / (VARIANCES + sigma**2) * x
        eps = (x - x0) / sigma
        return {
            "score": (x0 - x) / sigma**2 / alpha,
            "epsilon": eps,
            "v": alpha * eps - alpha * sigma * x0,
            "flow": eps - x0,
        }[parametrization]

    return priors.NetworkPrior(
        network, parametrization, (6,), schedule=schedule, time=schedule.t, sigma_range=(0.02, 20.0)
    )


@pytest.mark.parametrize("kind", SCHEDULED)
def test_guidance_knows_no_schedule(kind):
    """sigma / alpha for sigma^2 / alpha: a guidance scaled by the schedule of its network."""
    _, model, y, x = problem()
    A, sigma = model.operator.matrix, 0.8
    posterior = inverse.condition(scheduled(*SCHEDULED[kind]), model, y)
    x0 = VARIANCES / (VARIANCES + sigma**2) * x
    own = torch.diag(VARIANCES * sigma**2 / (VARIANCES + sigma**2))  # Cov[x0 | x]
    assumed = sigma**2 / (1 + sigma**2) * torch.eye(6, dtype=DOUBLE)  # of a prior N(0, I)
    noise = 0.04 * torch.eye(4, dtype=DOUBLE)
    for name, pulled, C in (
        ("mmps", own, own), ("tmpd", own, own), ("pigdm", own, assumed),
        ("jfps", assumed, assumed), ("plug-in", own, 0 * own),
    ):  # fmt: skip
        v = torch.linalg.solve(noise + A @ C @ A.T, (y - x0 @ A.T).T)
        found = find(name).recipe(posterior, 10).prior.denoise(x, sigma)
        torch.testing.assert_close(found, x0 + (pulled @ A.T @ v).T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [m for m in METHODS if m not in ("lgd", "tfg", "reverse-runs")])
def test_the_units_of_the_data_change_nothing(name):
    """The range of the data hides in a flag such as `minus_one_one=True`, and constants with it.

    The methods left out draw noise as a function of sigma, which is another in other units.
    """
    _, model, y, _ = problem()
    A = model.operator.matrix
    found = []
    for low, high in ((-1.0, 1.0), (0.0, 255.0)):
        unit = (high - low) / 2
        prior = priors.NetworkPrior(
            Spy(), "score", (6,), data_range=(low, high), sigma_range=(0.02 * unit, 20 * unit)
        )
        shifted = unit * y + (low + unit) * A.sum(1)
        posterior = inverse.condition(prior, LinearGaussian(MatrixOperator(A), 0.2 * unit), shifted)
        x = inverse.sample(posterior, n=2, method=name, steps=4, seed=0).x
        found.append((x - low) / unit - 1)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


# --- what is spent --------------------------------------------------------------------------------


@every_method
def test_every_network_call_and_product_is_told(name):
    """Two evaluations a step, or moment matching by products that are repeated: seen by a network
    that counts its own passes."""
    network, samples = spied(name)
    assert network.images == 3 * samples.diagnostics["network_calls"]
    assert network.backward_passes == samples.diagnostics["jacobian_products"]


@pytest.mark.parametrize(("name", "calls", "products"), [
    ("dps", 1, 1), ("pigdm", 1, 1), ("plug-in", 1, 1), ("mmps", 1, 3), ("tmpd", 1, 2),
    ("jfps", 1, 0), ("ddrm", 1, 0), ("ddnm", 1, 0), ("diffpir", 1, 0),
])  # fmt: skip
def test_a_step_costs_the_network_calls_it_needs(name, calls, products):
    """deepinv's moment matching takes 3.1 to 3.3 times a forward and a backward pass: products
    with the Jacobian are repeated where one graph gives them all."""

    class Wide(Spy):
        def __init__(self) -> None:
            super().__init__()
            self.variances.data = torch.linspace(0.3, 1.5, 80, dtype=DOUBLE)

    network = Wide()
    prior = priors.NetworkPrior(network, "score", (80,), sigma_range=(0.02, 20.0))
    model = LinearGaussian(Inpainting(torch.arange(80) < 70, channels=None), 1.0)
    if name == "ddrm":
        model = LinearGaussian(MatrixOperator(torch.eye(80, dtype=DOUBLE)[:70]), 1.0)
    y = model.simulate(torch.ones(1, 80, dtype=DOUBLE), generator=torch.Generator().manual_seed(0))
    inverse.sample(inverse.condition(prior, model, y), n=2, method=name, steps=5, seed=0)
    assert network.images == 2 * 5 * calls
    assert network.backward_passes <= 5 * products
    assert network.backward_passes >= 4 * products


@every_method
def test_no_graph_is_built_or_kept_without_need(name):
    """Guidance that leaves gradients on, or holds the graph of the steps before, takes memory."""
    network, _ = spied(name)
    if not find(name).jacobian:
        assert network.with_grad == {False}
    if find(name).family != "variational":  # which differentiate through several calls at once
        assert network.kept <= 2


class Watched(LinearOperator):
    """A dense matrix that counts its products."""

    event_shape, measurement_shape = (6,), (4,)
    event_ndim = measurement_ndim = 1

    def __init__(self) -> None:
        self.matrix = problem()[1].operator.matrix
        self.products = 0

    def _apply(self, x):
        self.products += 1
        return x @ self.matrix.T

    def _adjoint(self, y):
        self.products += 1
        return y @ self.matrix


@every_method
def test_the_shape_of_the_image_costs_no_product(name):
    """deepinv solves for a pseudo-inverse, 3.9 s for a slice of CT, to learn how large x is."""
    operator = Watched()
    prior, _, y, _ = problem()
    posterior = inverse.condition(Opaque(prior), LinearGaussian(operator, 0.2), y)
    if find(name).refusal(posterior) is None:
        find(name).recipe(posterior, 5)
    assert operator.products == 0


@pytest.mark.parametrize("name", ["dps", "pigdm", "ddnm", "diffpir", "score-sde", "repaint"])
def test_a_mask_is_solved_in_closed_form(name, monkeypatch):
    """deepinv's DiffPIR runs LSQR in every step, 1.6 to 3.2 times the cost of its network."""
    prior, model, y = mask_problem()
    products = []
    for side in ("_apply", "_adjoint"):
        inner = getattr(Inpainting, side)

        def counted(self, x, inner=inner):
            products.append(1)
            return inner(self, x)

        monkeypatch.setattr(Inpainting, side, counted)
    spent = []
    for steps in (4, 8):
        products.clear()
        posterior = inverse.condition(Opaque(prior), model, y)
        calls = inverse.sample(posterior, n=2, method=name, steps=steps, seed=0).diagnostics
        spent.append((len(products), calls["network_calls"]))
    more, calls = spent[1][0] - spent[0][0], spent[1][1] - spent[0][1]
    assert more <= 5 * calls


class Allocations(TorchDispatchMode):
    """Bytes of each tensor that torch makes meanwhile, views as what they view."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for part in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(part, torch.Tensor) and part.layout == torch.strided:
                storage = part.untyped_storage()
                self.sizes[storage.data_ptr()] = storage.nbytes()
        return out


@pytest.mark.parametrize("views", [30, 90])
def test_backprojection_needs_no_memory_beside_its_result(views):
    """deepinv's takes a rotated image for each view, 271 MiB beside a slice of 256 KiB."""
    A = Tomography((32, 32), torch.arange(views) * 180.0 / views)
    x = torch.rand(1, 1, 32, 32)
    y = A(x)
    A.adjoint(y)  # builds the transpose, once
    with Allocations() as seen:
        A(x)
        A.adjoint(y)
    assert sum(seen.sizes.values()) <= 2 * (x.nbytes + y.nbytes)


def test_importing_is_light_to_the_last_name():
    """`import deepinv` takes 5.8 s; here optional packages wait, torch itself until it is used."""
    code = (
        "import sys, inverse\n"
        "assert 'torch' not in sys.modules\n"
        "import torch, numpy, safetensors.torch\n"
        "before = {m.split('.')[0] for m in sys.modules}\n"
        "import priors, forward_models\n"
        "for name in inverse.__all__: getattr(inverse, name)\n"
        "for name in priors.__all__: getattr(priors, name)\n"
        "for name in forward_models.__all__: getattr(forward_models, name)\n"
        "inverse.methods()\n"
        "new = {m.split('.')[0] for m in sys.modules} - before - set(sys.stdlib_module_names)\n"
        "assert new == {'priors', 'forward_models'}, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- what is left alone ---------------------------------------------------------------------------


@every_method
def test_nothing_given_is_changed(name):
    """Constructors that freeze, cast or move the objects they are given."""
    network = Spy().train()
    network.variances.requires_grad_(True)
    posterior = network_posterior(network)
    model, y = posterior.factors[0]
    before = {"y": y.clone(), "A": model.operator.matrix.clone(), "state": dict(vars(model))}
    inverse.sample(posterior, n=2, method=name, steps=2, seed=0)
    assert network.training
    assert network.variances.requires_grad
    assert network.variances.grad is None
    assert torch.equal(network.variances, VARIANCES)
    assert torch.equal(y, before["y"])
    assert torch.equal(model.operator.matrix, before["A"])
    assert vars(model) == before["state"]
    assert posterior.factors[0][0] is model


def test_classes_are_abstract_or_final():
    """Guidance as wrappers and as subclasses of samplers: two ways to do one thing, two answers."""

    def below(cls):
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    import inverse.recipes  # noqa: F401  (all that there is)

    for root in (Sampler, Likelihood, Prior, LinearOperator):
        found = {
            c for c in below(root) if c.__module__.startswith(("inverse", "priors", "forward_"))
        }
        assert len(found) > 3
        for cls in found:
            between = [b for b in cls.__mro__[1:] if issubclass(b, root)]
            assert all(inspect.isabstract(b) for b in between), cls
