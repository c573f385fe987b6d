"""Methods of latent diffusion: against closed forms under linear autoencoders, and in any units."""

from __future__ import annotations

import math

import pytest
import torch
from method_cases import POSTERIORS, Bent
from problems import DOUBLE, problem
from splitting_laws import LEVELS, denoised, law, law_of, recursion
from test_latent import inpainting, tiny_kl
from test_splitting import seen

import inverse
import priors
from forward_models import (
    Gaussian,
    LinearGaussian,
    MatrixOperator,
    Observation,
    Poisson,
    from_simulator,
)
from inverse.likelihoods import Glued
from inverse.likelihoods.likelihood import Moments
from inverse.recipes import find
from inverse.splitting import (
    Consistent,
    FlowODE,
    Fresh,
    GaussianDraw,
    Mean,
    Problem,
    Renewed,
    Resampled,
    Slack,
    Splitting,
    Unmoved,
)
from inverse.splitting.updates import DataStep

METHODS = ("ldps", "psld", "resample", "latent-daps")


class Orthonormal:
    """x = W z with W^T W = I; encoding is W^T x."""

    def __init__(self, rows: int = 8, columns: int = 6) -> None:
        g = torch.Generator().manual_seed(7)
        self.W = torch.linalg.qr(torch.randn(rows, columns, generator=g, dtype=DOUBLE)).Q

    def decode(self, z):
        return z @ self.W.T.to(z)

    def encode(self, x):
        return x @ self.W.to(x)


def linear_case(rows=4, sigma=0.2, **settings):
    """(posterior of latents, posterior on B = A W, m, C, A, W, y) of N(m, C) latents."""
    known, _, _, _ = problem()
    _, model, y, _ = problem(size=8, rows=rows)
    A, autoencoder = model.operator.matrix.to(DOUBLE), Orthonormal()
    prior = priors.LatentPrior(known, autoencoder, **settings)
    W = autoencoder.W
    hidden = inverse.condition(prior, LinearGaussian(MatrixOperator(A), sigma), y)
    shown = inverse.condition(known, LinearGaussian(MatrixOperator(A @ W), sigma), y)
    mean, C = known.moments()
    return hidden, shown, mean.to(DOUBLE), C.to(DOUBLE), A, W, y[0]


def moments(prior, x, sigma):
    x0, product = prior.covariance(x, sigma)
    return Moments(x, torch.full((len(x), 1), sigma, dtype=DOUBLE), x0, product, prior=prior)


def glued(posterior, **options) -> Glued:
    (likelihood,) = find("psld").recipe(posterior, 100, **options).prior.likelihoods
    assert isinstance(likelihood, Glued)
    return likelihood


def starts(n=3):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


# --- psld -----------------------------------------------------------------------------------------


def test_the_glue_is_what_encoding_makes_of_the_residual_and_vanishes_with_it():
    """g = -W^T A^T r / |A|^2 under a linear autoencoder; 0 for any z whose image explains y."""
    hidden, _, _, _, A, W, y = linear_case()
    z = starts()
    r, g = glued(hidden).parts(z)
    torch.testing.assert_close(r, y - z @ (A @ W).T)
    norm = torch.linalg.matrix_norm(A, 2)
    torch.testing.assert_close(g, -r @ A @ W / norm**2, rtol=2e-3, atol=1e-12)
    fitted = z + r @ torch.linalg.pinv(A @ W).T
    r, g = glued(hidden).parts(fitted)
    assert float(r.abs().max()) < 1e-12
    assert float(g.abs().max()) < 1e-12


def test_the_glue_of_a_projection_asks_for_latents_that_encode_their_image_with_y_put_in():
    mask = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 1.0, 0, 0, 0]], dtype=DOUBLE)
    prior = priors.LatentPrior(problem(size=4)[0], Bent())
    y = torch.tensor([[0.3, -0.8]], dtype=DOUBLE)
    posterior = inverse.condition(prior, LinearGaussian(MatrixOperator(mask), 0.1), y)
    z = starts()[:, :4]
    x = prior.decode(z)
    filled = x.clone()
    filled[:, [0, 2]] = y
    _, g = glued(posterior).parts(z)
    torch.testing.assert_close(g, z - prior.encode(filled)[0], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("image_range", [(-1.0, 1.0), (0.0, 10.0)])
def test_the_shift_of_psld_is_the_published_gradient(image_range):
    """Through denoiser, decoder and encoder, by central differences of the published loss."""
    _, model, y, _ = problem()
    known = problem(size=4)[0]
    prior = priors.LatentPrior(known, Bent(), image_range=image_range)
    posterior = inverse.condition(prior, model, y)
    w, norm = (image_range[1] - image_range[0]) / 2, model.operator.norm((6,))
    schedule, steps, sigma = priors.VP(), 100, 0.7
    t = schedule.t(torch.tensor([sigma], dtype=DOUBLE))
    ahead = schedule.sigma(t - 1 / steps)
    fall = schedule.alpha(t) * schedule.alpha(t - 1 / steps) * (sigma**2 - ahead**2)

    def loss(x):
        z = prior.denoise(x, sigma)
        image = prior.decode(z)
        r = y - image @ model.operator.matrix.T.to(DOUBLE)
        back = prior.encode(image + r @ model.operator.matrix.to(DOUBLE) / norm**2)[0]
        return 0.7 * r.norm(dim=1) / w + 0.3 * (z - back).norm(dim=1)

    x, h = starts()[:, :4], 1e-5
    axes = torch.eye(4, dtype=DOUBLE)
    slope = torch.stack([(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in axes], 1)
    likelihood = glued(posterior, omega=0.7, gamma=0.3, bounded=False)
    found = likelihood.shift(moments(prior, x, sigma))
    torch.testing.assert_close(found, -(sigma**2) / fall * slope, rtol=2e-3, atol=1e-6)
    at = moments(prior, x, sigma)
    density = model.log_likelihood(y, prior.decode(at.x0))
    torch.testing.assert_close(likelihood.log_likelihood(at), density)


def test_a_bounded_step_is_along_the_published_one_and_no_longer():
    hidden, *_ = linear_case()
    for sigma in (0.05, 0.5, 5.0):
        at = moments(hidden.prior, starts(), sigma)
        free = glued(hidden, gamma=0.0, bounded=False).shift(at)
        held = glued(hidden, gamma=0.0).shift(at)
        share = (free * held).sum(1) / (free * free).sum(1)
        torch.testing.assert_close(held, share[:, None] * free)
        assert bool((share > 0).all())
        assert bool((share <= 1).all())
    assert bool((share < 1).any())


def test_psld_without_glue_is_ldps():
    hidden, *_ = linear_case()
    options = {"n": 4, "steps": 30, "seed": 1, "bounded": False}
    a = inverse.sample(hidden, method="psld", omega=0.4, gamma=1e-12, **options)
    b = inverse.sample(hidden, method="ldps", zeta=0.4, **options)
    torch.testing.assert_close(a.latents, b.latents, rtol=1e-7, atol=1e-8)


# --- ldps -----------------------------------------------------------------------------------------


def test_ldps_is_dps_on_the_composed_operator():
    hidden, shown, *_ = linear_case()
    options = {"n": 4, "steps": 40, "seed": 0, "zeta": 0.3, "bounded": False}
    a = inverse.sample(hidden, method="ldps", **options)
    b = inverse.sample(shown, method="dps", **options)
    torch.testing.assert_close(a.latents, b.x, rtol=1e-8, atol=1e-9)
    assert a.diagnostics["jacobian_products"] == 40


def test_ldps_serves_counts_and_curved_operators_of_images():
    prior = priors.LatentPrior(problem(size=4)[0], Bent())
    squared = from_simulator(lambda x: x.square() + 1, Gaussian(0.3), (6,)).operator
    for noise in (Gaussian(0.3), Poisson(20.0)):
        model = Observation(squared, noise)
        truth = prior.decode(prior.prior.sample(1, torch.Generator().manual_seed(2)))
        y = model.simulate(truth, torch.Generator().manual_seed(3))
        posterior = inverse.condition(prior, model, y)
        fit = inverse.sample(posterior, n=8, method="ldps", steps=40, seed=0)
        assert fit.diagnostics["reduced_chi2"] < 4


# --- resample -------------------------------------------------------------------------------------


class Fitted(DataStep):
    """z = x0 + B^+ (y - B x0), the least squares that the latents' climb would find."""

    def __init__(self, B, y):
        self.pinv, self.B, self.y = torch.linalg.pinv(B), B, y

    def __call__(self, split):
        return split.x0 + (self.y - split.x0 @ self.B.T) @ self.pinv.T


def test_stochastic_resampling_has_the_stated_mean_and_variance():
    """Against the paper's formula in the coordinates of variance preservation."""
    hidden, *_ = linear_case()
    sigma, ahead = 0.7, 0.35
    abar, abar_next = 1 / (1 + sigma**2), 1 / (1 + ahead**2)
    own = 40 * (1 - abar_next) / (1 - abar) * (1 - abar / abar_next)
    z, x = starts(2)
    x0, x = z[None], x[None]

    class To(DataStep):
        def __call__(self, split):
            return split.x0 + 2.0

    def drawn(noise, n):
        from dataclasses import replace

        eps = lambda which=0, shape=None: noise.normal(which)  # noqa: E731
        split = seen(hidden, x0.expand(n, -1), sigma=sigma, eps=eps)
        split = replace(split, x=x.expand(n, -1))
        assert split.sigma_next == ahead
        return Resampled(To(), every=1)(split)[0]

    mean, cov = law_of(drawn, (6,))
    root = math.sqrt(abar_next)
    path = root * (x0 + ahead / sigma * (x - x0))[0]  # of DDIM, as sqrt(abar') x'
    expected = (own * root * (x0[0] + 2) + (1 - abar_next) * path) / (own + 1 - abar_next) / root
    torch.testing.assert_close(mean, expected)
    variance = 1 / (1 / own + 1 / (1 - abar_next)) / abar_next
    torch.testing.assert_close(cov, variance * torch.eye(6, dtype=DOUBLE))


@pytest.mark.parametrize(("every", "first"), [(1, 0), (2, 0), (1, 2)])
def test_resample_follows_its_recursion(every, first):
    hidden, _, m, C, A, W, y = linear_case()
    B, eye = A @ W, torch.eye(6, dtype=DOUBLE)
    pinv = torch.linalg.pinv(B)
    levels = LEVELS.tolist()

    def step(sigma, ahead):
        D, d = denoised(m, C, sigma)
        Z, z = (eye - pinv @ B) @ D, (eye - pinv @ B) @ d + pinv @ y
        if ahead == 0:
            return Z, z, 0 * eye
        P, p = (1 - ahead / sigma) * D + ahead / sigma * eye, (1 - ahead / sigma) * d
        k = levels.index(sigma)
        if k < first or k % every:
            return P, p, 0 * eye
        s = 40 * ahead**2 * (1 - ahead**2 / sigma**2)
        variance = 1 / (1 / s + 1 / ahead**2)
        share = s / (s + ahead**2)
        return (1 - share) * P + share * Z, (1 - share) * p + share * z, variance * eye

    sampler = Splitting(LEVELS, Mean(), Resampled(Fitted(B, y), every=every, first=first))
    for found, expected in zip(law(sampler, hidden), recursion(step, m, C), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_hard_consistency_is_least_squares_in_the_image_and_then_in_the_latents():
    """Where no image explains y, so that nothing stops the climb before its end."""
    hidden, _, _, _, A, W, y = linear_case(rows=10, sigma=0.01)
    x0 = starts()
    fitted = Fitted(A @ W, y)(seen(hidden, x0))
    late = Consistent(late=0, iterations=40)(seen(hidden, x0))
    torch.testing.assert_close(late, fitted, rtol=1e-4, atol=1e-4)
    image = x0 @ W.T
    image = image + (y - image @ A.T) @ torch.linalg.pinv(A).T
    early = Consistent(late=1, iterations=60)(seen(hidden, x0))
    torch.testing.assert_close(early, image @ W, rtol=1e-3, atol=1e-3)


def test_hard_consistency_ends_at_the_noise_of_each_sample():
    posterior = POSTERIORS["latent"]()
    problem_ = Problem(posterior)
    z = starts(6)[:, :4]
    z[0] = Consistent(0, 100)(seen(posterior, z))[0]  # this one explains y already
    before = problem_.explained(z)
    found = Consistent(late=0, iterations=100)(seen(posterior, z))
    assert bool(before[0])
    assert torch.equal(found[before], z[before])
    model, y = posterior.factors[0]
    after = model.misfit(y, problem_.decoder.apply(found))
    assert bool((after <= 1).all())
    assert float(after[~before].min()) > 1e-3  # far from the noise itself
    for late in (0, 1):
        alone = Consistent(late, 20)(seen(posterior, z[3:4]))
        torch.testing.assert_close(alone, Consistent(late, 20)(seen(posterior, z))[3:4])


def test_the_stages_of_resample():
    """A third of DDIM alone, a third in images, a third in latents; at every tenth step."""
    sampler = find("resample").recipe(POSTERIORS["latent"](), 500).sampler
    update = sampler.update
    assert (update.first, update.every, update.data.late) == (166, 10, 333)
    assert len(sampler.path) == 501
    assert sampler.network_calls == 500


# --- latent-daps ----------------------------------------------------------------------------------


def test_latent_daps_with_long_chains_has_the_law_of_daps_on_the_composed_operator():
    hidden, shown, *_ = linear_case(sigma=0.5)
    options = {"start": 1.5, "end": 0.2, "length": 40}
    recipe = find("latent-daps").recipe(hidden, 4, **options)
    exact = Splitting(recipe.sampler.levels, FlowODE(2), Renewed(GaussianDraw(Slack()), Fresh()))
    mean, cov = law(exact, shown)
    n = 1000
    z = inverse.sample(hidden, n=n, method="latent-daps", steps=4, seed=0, **options).latents
    white = (z - mean) @ torch.linalg.inv(torch.linalg.cholesky(cov)).T
    assert float(white.mean(0).abs().max()) < 0.15
    assert float((white.T @ white / n - torch.eye(6, dtype=DOUBLE)).abs().max()) < 0.2


def test_latent_daps_goes_from_ten_to_a_tenth_in_units_of_latents():
    sampler = find("latent-daps").recipe(POSTERIORS["latent"](), 50).sampler
    assert sampler.levels[0] == 10
    assert float(sampler.levels[-2]) == pytest.approx(0.1)
    assert sampler.network_calls == 100


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_latents_do_not_depend_on_the_units_of_images_and_measurement(name):
    """The same picture in [-1, 1] and in [0, 10], its y and its noise in those units."""
    _, model, y, _ = problem()
    known, A = problem(size=4)[0], model.operator.matrix.to(DOUBLE)

    def drawn(image_range, y, sigma):
        prior = priors.LatentPrior(known, Bent(), image_range=image_range)
        posterior = inverse.condition(prior, LinearGaussian(MatrixOperator(A), sigma), y)
        return inverse.sample(posterior, n=3, method=name, steps=6, seed=2)

    ones = torch.ones(1, 6, dtype=DOUBLE)
    a = drawn((-1.0, 1.0), y, 0.2)
    b = drawn((0.0, 10.0), 5 * y + 5 * ones @ A.T, 1.0)
    torch.testing.assert_close(a.latents, b.latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(5 * a.x + 5, b.x, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_more_steps_explain_the_measurement(name):
    _, model, _, _ = problem()
    prior = priors.LatentPrior(problem(size=4)[0], Bent())
    g = torch.Generator().manual_seed(1)
    y = model.simulate(prior.decode(prior.prior.sample(1, g)), g)
    free = inverse.sample(prior, n=8, steps=20, seed=0, dtype=DOUBLE).x
    fit = inverse.sample(
        inverse.condition(prior, model, y), n=8, method=name, seed=0,
        steps=15 if name == "latent-daps" else 90,
    ).diagnostics["reduced_chi2"]  # fmt: skip
    assert fit < 3
    assert fit < 0.1 * float(model.misfit(y, free).square().mean())


@pytest.mark.parametrize("name", ["psld", "resample"])
def test_an_autoencoder_of_convolutions_and_attention_in_single_precision(name):
    vae = tiny_kl(scaling_factor=0.05)
    prior = priors.LatentPrior(priors.Gaussian(torch.zeros(4, 4, 4), 1.0), vae)
    model = inpainting((3, 8, 8), 0.05)
    g = torch.Generator().manual_seed(1)
    y = model.simulate(prior.decode(torch.randn(1, 4, 4, 4, generator=g)), g)
    free = inverse.sample(prior, n=2, steps=10, seed=0).x
    fit = inverse.sample(inverse.condition(prior, model, y), n=2, method=name, steps=20, seed=0)
    assert fit.x.dtype == torch.float32
    spent = fit.diagnostics
    assert (spent["network_calls"], spent["jacobian_products"]) == (20, 20 * (name == "psld"))
    assert spent["reduced_chi2"] < 0.3 * float(model.misfit(y, free).square().mean())


@pytest.mark.parametrize(
    ("name", "instead"),
    [("ldps", "dps"), ("psld", "dps"), ("resample", "diffpir"), ("latent-daps", "daps")],
)
def test_priors_of_images_are_refused_with_the_method_for_them(name, instead):
    with pytest.raises(
        ValueError, match=f"needs a latent prior; for priors of images use {instead}"
    ):
        inverse.sample(POSTERIORS["linear"](), method=name)
    assert name in [m.name for m in inverse.methods(POSTERIORS["latent"]())]


def test_what_they_need_is_said():
    class Blind(Bent):
        encode = None

    _, model, y, _ = problem()
    known = problem(size=4)[0]
    blind = inverse.condition(priors.LatentPrior(known, Blind()), model, y)
    for name in ("psld", "resample"):
        with pytest.raises(ValueError, match="Blind has no encode"):
            inverse.sample(blind, method=name)
    prior = priors.LatentPrior(known, Bent())
    seen_all = torch.zeros(1, 6, dtype=DOUBLE)
    curved = inverse.condition(prior, from_simulator(torch.tanh, Gaussian(0.3), (6,)), seen_all)
    with pytest.raises(ValueError, match="Observation is not linear in the image"):
        inverse.sample(curved, method="psld")
    dark = from_simulator(torch.tanh, Gaussian(0.3), (6,), differentiable=False)
    for name in METHODS:
        with pytest.raises(ValueError, match="cannot sample"):
            inverse.sample(inverse.condition(prior, dark, seen_all), method=name)


def test_arguments_are_checked():
    posterior = POSTERIORS["latent"]()
    for name, options, why in [
        ("ldps", {"zeta": 0.0}, "zeta must be"),
        ("ldps", {"bounded": 1}, "bounded must be"),
        ("psld", {"omega": 0.0}, "omega must be"),
        ("psld", {"gamma": -1.0}, "gamma must be"),
        ("psld", {"bounded": 1}, "bounded must be"),
        ("resample", {"every": 0}, "every must be"),
        ("resample", {"scale": 0.0}, "scale must be"),
        ("resample", {"iterations": 0}, "iterations must be"),
        ("latent-daps", {"start": 0.0}, "start must be"),
        ("latent-daps", {"end": 0.0}, "end must be"),
        ("latent-daps", {"ode_steps": 0}, "ode_steps must be|integer"),
        ("latent-daps", {"inner": "exact"}, "inner='exact' takes linear"),
        ("daps", {"inner": "exact"}, "inner='exact' takes linear"),
    ]:
        with pytest.raises(ValueError, match=why):
            inverse.sample(posterior, method=name, steps=3, **options)
    _, model, y, _ = problem()
    settings = {"schedule": priors.VP(), "steps": 10}
    with pytest.raises(TypeError, match="needs a LatentPrior"):
        Glued(model, y, problem()[0], **settings)
    with pytest.raises(TypeError, match="needs a LinearGaussian"):
        Glued(POSTERIORS["curved"]().factors[0][0], y, posterior.prior, **settings)
    with pytest.raises(TypeError, match="needs a posterior of latents"):
        Consistent(0)(seen(POSTERIORS["linear"](), starts()))
    for bad in ({"scale": -1.0}, {"every": 0}, {"first": -1}):
        with pytest.raises(ValueError, match="must be"):
            Resampled(Unmoved(), **bad)
