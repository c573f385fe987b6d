"""Projection of clean images and noisy states, and spectral steps: their recursions and limits."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from method_cases import POSTERIORS
from problems import DOUBLE, problem
from splitting_laws import LEVELS, denoised, gaussian_case, law, recursion
from test_splitting import noise_of, seen

import inverse
import priors
from forward_models import (
    MRI,
    Blur,
    ChannelMixing,
    Downsampling,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    RealToComplex,
    Tomography,
    from_function,
    gaussian_kernel,
    gaussian_lines,
)
from inverse.likelihoods import Measured
from inverse.recipes import find
from inverse.samplers import AdaptiveODE, Ancestral, Multistep, PredictorCorrector, TimeTravel
from inverse.splitting import (
    Fresh,
    Mean,
    Partly,
    Problem,
    Projected,
    Projection,
    ProximalMap,
    Renewed,
    Slack,
    Spectral,
    Splitting,
)
from inverse.splitting.discrepancy import stopped_fit
from inverse.splitting.projection import pseudo_inverse

EYE = torch.eye(6, dtype=DOUBLE)


def follows(sampler, posterior, step, m, C):
    for found, expected in zip(law(sampler, posterior), recursion(step, m, C), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("eta", "eta_b", "eta_low"), [(0.85, 1.0, None), (0.5, 0.7, None),
                                                       (0.85, 1.0, 0.0)])  # fmt: skip
def test_spectral_steps_follow_their_recursion(eta, eta_b, eta_low):
    """DDRM as in its paper's equations, one direction after the other; DDNM+ with eta_low = 0.

    Noise scaled by 1 / sqrt 2, as it can be found elsewhere, would fail.
    """
    posterior, m, C, A, y = gaussian_case()
    U, s, Vh = torch.linalg.svd(A)
    low_eta = eta if eta_low is None else eta_low

    def step(sigma, ahead):
        D, d = denoised(m, C, sigma)
        M, c, L = torch.zeros(6, 6).double(), torch.zeros(6).double(), torch.zeros(6, 6).double()
        for i in range(6):
            v = Vh[i]
            if i >= 4:
                k = math.sqrt(1 - eta**2) * ahead / sigma
                row, shift, noise = v @ D + k * (v - v @ D), (1 - k) * (v @ d), eta * ahead
            else:
                level, target = 0.2 / s[i], U[:, i] @ y / s[i]
                if ahead < level:
                    g = math.sqrt(1 - low_eta**2) * ahead / level
                    noise = low_eta * ahead
                else:
                    g, noise = eta_b, torch.sqrt(ahead**2 - eta_b**2 * level**2)
                row, shift = (1 - g) * (v @ D), (1 - g) * (v @ d) + g * target
            M, c, L = M + torch.outer(v, row), c + v * shift, L + torch.outer(v, v) * noise
        return (M, c, L @ L.T) if ahead > 0 else (D, d, torch.zeros(6, 6).double())

    follows(Splitting(LEVELS, Mean(), Spectral(eta, eta_b, eta_low)), posterior, step, m, C)


@pytest.mark.parametrize("cutoff", [0.03, 0.6])
def test_ddnm_follows_its_recursion(cutoff):
    """z = x0 + A^+ (y - A x0), x' = z + DDIM noise as the prior sees it."""
    posterior, m, C, A, y = gaussian_case()
    P = torch.linalg.pinv(A, rtol=cutoff)
    eta = 0.85

    def step(sigma, ahead):
        D, d = denoised(m, C, sigma)
        c = eta * ahead / sigma * math.sqrt(sigma**2 - ahead**2)
        k = math.sqrt(ahead**2 - c**2) / sigma
        N = EYE - P @ A
        return N @ D + k * (EYE - D), N @ d + P @ y - k * d, c**2 * EYE

    sampler = Splitting(LEVELS, Mean(), Renewed(Projection(cutoff=cutoff), Partly(eta)))
    follows(sampler, posterior, step, m, C)


@pytest.mark.parametrize(("relaxation", "cutoff"), [(1.0, 0.03), (0.7, 0.03), (0.7, 0.6)])
def test_projected_states_follow_their_recursion(relaxation, cutoff):
    """x' <- x' + relaxation A^+ (y + sigma' A z - A x') after each ancestral step."""
    posterior, m, C, A, y = gaussian_case()
    P = torch.linalg.pinv(A, rtol=cutoff)
    assert torch.linalg.matrix_rank(P) == (4 if cutoff < 0.1 else 2)

    def step(sigma, ahead):
        D, d = denoised(m, C, sigma)
        c = ahead / sigma * math.sqrt(sigma**2 - ahead**2)
        k = math.sqrt(ahead**2 - c**2) / sigma
        share = relaxation if ahead > 0 else 1.0
        N = EYE - share * P @ A
        Q = c**2 * N @ N.T + (share * ahead) ** 2 * (P @ A) @ (P @ A).T
        return N @ (D + k * (EYE - D)), N @ (d - k * d) + share * P @ y, Q

    sampler = Projected(Ancestral(LEVELS), relaxation, cutoff=cutoff)
    follows(sampler, posterior, step, m, C)


class Plain(MatrixOperator):
    svd = None


def test_a_projection_is_the_nearest_consistent_image():
    """Without an SVD and without noise, too: by conjugate gradients on the normal equations."""
    prior, model, y, x = problem()
    A = model.operator.matrix.to(DOUBLE)
    for measured in (model, LinearGaussian(Plain(A), 1e-9)):
        posterior = inverse.condition(prior, measured, y)
        z = Projection()(seen(posterior, x))
        torch.testing.assert_close(z, x + (y - x @ A.T) @ torch.linalg.pinv(A).T)


PROJECTIONS = ("repaint", "ilvr", "score-sde", "mcg", "medical-projection", "ddnm")


def blurred():
    """A blur whose singular values fall from 1 to 1e-8, noise 0.05, and A as a matrix."""
    operator = Blur(gaussian_kernel(1.6), "circular", image_shape=(1, 16, 16))
    A = operator.apply(torch.eye(256, dtype=DOUBLE).reshape(256, 1, 16, 16)).reshape(256, 256).T
    prior = priors.Gaussian(torch.zeros(1, 16, 16, dtype=DOUBLE), 1.0)
    model = LinearGaussian(operator, 0.05)
    g = torch.Generator().manual_seed(0)
    y = model.simulate(torch.randn(1, 1, 16, 16, generator=g, dtype=DOUBLE), g)
    return inverse.condition(prior, model, y), A, y


@pytest.mark.parametrize("cutoff", [0.03, 0.2])
def test_small_singular_values_count_as_zero(cutoff):
    """As numpy's truncated pseudo-inverse does it, A dense; x stays where they are cut."""
    posterior, A, y = blurred()
    x = noise_of(y)
    z = Projection(cutoff=cutoff)(seen(posterior, x))
    P = torch.linalg.pinv(A, rtol=cutoff)
    expected = x.flatten() + P @ (y.flatten() - A @ x.flatten())
    torch.testing.assert_close(z.flatten(), expected, rtol=1e-10, atol=1e-10)
    cut = torch.eye(256, dtype=DOUBLE) - P @ A
    torch.testing.assert_close(cut @ z.flatten(), cut @ x.flatten(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_noise_behind_a_blur_is_held_down(name):
    """By 1 / cutoff at the most; a smaller cutoff lets 1 / s through, which is up to 1e8."""
    posterior, A, y = blurred()
    few = {"steps": 6, "seed": 0, **({"jumps": 2, "repeats": 2} if name == "repaint" else {})}
    fit = torch.linalg.pinv(A, rtol=0.03) @ y.flatten()
    kept = torch.linalg.pinv(A, rtol=0.03) @ A
    x = inverse.sample(posterior, n=2, method=name, **few).x
    torch.testing.assert_close(x.flatten(1) @ kept.T, fit.expand(2, -1), rtol=1e-6, atol=1e-6)
    assert float(x.abs().max()) < 30  # six steps of Euler are coarse
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wild = inverse.sample(posterior, n=2, method=name, cutoff=1e-9, **few).x
    assert float(wild.abs().max()) > 1e3


def test_nothing_of_equal_singular_values_is_cut():
    """A mask and averages: the largest cutoff changes no bit."""
    x = noise_of(torch.empty(2, 1, 8, 8))
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    for operator in (Inpainting(mask.expand(1, 8, 8)), Downsampling(2, image_shape=(1, 8, 8))):
        prior = priors.Gaussian(torch.zeros(1, 8, 8, dtype=DOUBLE), 1.0)
        posterior = inverse.condition(prior, LinearGaussian(operator, 0.1), operator.apply(x[:1]))
        z = [Projection(cutoff=c)(seen(posterior, x)) for c in (0.0, 0.99)]
        assert torch.equal(*z)


def test_a_merge_of_k_space_is_the_inverse_transform():
    """Complex images: F^-1 of the measured lines, after 1 iteration; real ones agree after 2."""
    g = torch.Generator().manual_seed(4)
    mri = MRI(torch.tensor([True, False, True, True, False, False]).expand(6, 6))
    y = torch.randn(2, 1, 6, 6, generator=g, dtype=torch.complex128)
    y = mri.apply(torch.complex(y.real, y.imag))
    merged = pseudo_inverse(Measured(LinearGaussian(mri, 0.1), y), packed(y, mri), 1, 0.03)
    torch.testing.assert_close(merged, mri.adjoint(y), rtol=1e-10, atol=1e-12)
    real = mri @ RealToComplex()
    y = real.apply(torch.randn(2, 1, 6, 6, generator=g, dtype=DOUBLE))
    x = pseudo_inverse(Measured(LinearGaussian(real, 0.1), y), packed(y, mri), 2, 0.03)
    torch.testing.assert_close(real.apply(x), y, rtol=1e-10, atol=1e-12)
    assert float((real.apply(real.adjoint(y)) - y).norm()) > 0.1 * float(y.norm())


def packed(y, operator):
    return Measured(LinearGaussian(operator, 0.1), y).pack(y)


def test_measured_pixels_of_a_mask_end_at_y():
    """RePaint, ILVR, score-SDE and MCG return y where it was measured, to rounding."""
    prior = priors.Gaussian(torch.zeros(1, 4, 4, dtype=DOUBLE), 1.0)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[:2] = False
    y = torch.linspace(-1, 1, 16, dtype=DOUBLE).reshape(1, 1, 4, 4)
    posterior = inverse.condition(prior, LinearGaussian(Inpainting(mask), 0.01), y)
    for name in PROJECTIONS:
        x = inverse.sample(posterior, n=3, method=name, steps=6, seed=0).x
        torch.testing.assert_close(x[:, :, 2:], y.expand(3, -1, -1, -1)[:, :, 2:])
        assert float(x[:, :, :2].std()) > 0.1


def test_repaint_repeats_blocks_and_counts_them():
    """T = 250 in blocks of 10 steps, each walked 10 times; steps back up cost no call."""
    recipe = find("repaint").recipe(POSTERIORS["linear"](), 250)
    assert isinstance(recipe.sampler, TimeTravel)
    assert recipe.sampler.network_calls == 2500
    assert recipe.sampler.splits
    posterior = POSTERIORS["linear"]()
    with pytest.raises(ValueError, match="no likelihood under a sampler"):
        inverse.sample(posterior, method="repaint", sampler=Ancestral(LEVELS))


def test_parts_are_checked():
    with pytest.raises(ValueError, match=r"eta_b must lie in \[0, 1\]"):
        Spectral(0.5, 1.5)
    for bad in (Multistep(LEVELS), AdaptiveODE((0.1, 3.0))):
        with pytest.raises(ValueError, match="cannot be projected after each step"):
            Projected(bad)
    with pytest.raises(TypeError, match="sampler must be a Sampler, got int"):
        Projected(3)
    for bad in (-0.1, 1.0, True, "none"):
        for part in (lambda cutoff: Projection(cutoff=cutoff),
                     lambda cutoff: Projected(Ancestral(LEVELS), cutoff=cutoff)):  # fmt: skip
            with pytest.raises(ValueError, match=r"cutoff must lie in \[0, 1\)"):
                part(bad)
    for relaxation in (0.0, 1.5):
        with pytest.raises(ValueError, match="relaxation must"):
            Projected(PredictorCorrector(Ancestral(LEVELS)), relaxation)
    with pytest.raises(TypeError, match="linear measurements"):
        Projected(Ancestral(LEVELS))(POSTERIORS["curved"](), 2, dtype=DOUBLE)
    prior, model, y, _ = problem()
    coloured = LinearGaussian(model.operator, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"noise is not white.*Methods that can: .*ddnm"):
        inverse.sample(inverse.condition(prior, coloured, y), method="ddrm")


SIZE, VIEWS = 16, 10


def smooth_prior(size=SIZE):
    """Of smooth images, as vectors: correlation length 3 pixels, RMS 1."""
    axes = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    places = torch.stack(axes, -1).reshape(-1, 2).to(DOUBLE)
    eye = torch.eye(size**2, dtype=DOUBLE)
    return torch.exp(-(torch.cdist(places, places) ** 2) / 18) + 1e-4 * eye


def scanned(sigma):
    """Parallel CT of 10 views as a matrix without an SVD: posterior, the truth, y."""
    scan = Tomography((SIZE, SIZE), [18.0 * k for k in range(VIEWS)])
    A = scan.apply(torch.eye(SIZE**2, dtype=DOUBLE).reshape(-1, 1, SIZE, SIZE)).flatten(1).T
    prior = priors.Gaussian(torch.zeros(SIZE**2, dtype=DOUBLE), smooth_prior())
    g = torch.Generator().manual_seed(0)
    x = prior.sample(1, generator=g)
    model = LinearGaussian(Plain(A), sigma)
    y = model.simulate(x, g)
    return inverse.condition(prior, model, y), x, y


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("name", PROJECTIONS)
def test_noise_of_a_scan_does_not_arrive_step_by_step(name):
    """Believed as it is, y of noise 0.5 brings errors up to 4 times the prior's RMS."""
    posterior, x, _ = scanned(0.5)
    few = {"seed": 0, "iterations": 10}
    if name == "repaint":
        few |= {"jumps": 10, "repeats": 2}
    errors = [
        rms(inverse.sample(posterior, n=2, method=name, steps=steps, **few).x - x)
        for steps in (50, 200)
    ]
    assert errors[1] < 1.1 * errors[0], errors
    assert max(errors) < 0.25 * rms(x), errors


@pytest.mark.parametrize("unequal", [False, True])
def test_the_believed_measurement_is_the_first_krylov_fit_within_the_noise(unequal):
    """Least squares over each Krylov space, by dense algebra, until the misfit is at most 1."""
    _, x, _ = scanned(0.5)
    A = scanned(0.5)[0].factors[0][0].operator.matrix.to(DOUBLE)
    sigma = torch.full((len(A),), 0.5, dtype=DOUBLE)
    if unequal:
        sigma[::3] = 1.0
    model = LinearGaussian(Plain(A), sigma if unequal else 0.5)
    y = model.simulate(x, torch.Generator().manual_seed(1))
    white, target = A / sigma[:, None], y[0] / sigma
    basis = (white.T @ target)[:, None]
    for _ in range(40):
        basis = torch.linalg.qr(basis).Q
        best = basis @ torch.linalg.lstsq(white @ basis, target[:, None]).solution[:, 0]
        misfit = rms(target - white @ best)
        if misfit <= 1:
            break
        basis = torch.cat([basis, white.T @ (white @ basis[:, -1:])], 1)
    assert 2 < basis.shape[1] < 40
    assert 0.7 < misfit <= 1
    measured = Measured(model, y)
    torch.testing.assert_close(stopped_fit(measured)[0], best, rtol=1e-6, atol=1e-8)
    posterior = inverse.condition(priors.Gaussian(torch.zeros(len(best)).double(), 1.0), model, y)
    believed = Problem(posterior).believed.y
    torch.testing.assert_close(believed[0], A @ best, rtol=1e-6, atol=1e-6)


def test_a_measurement_is_believed_whoever_is_beside_it_and_to_its_noise():
    posterior, x, y = scanned(0.5)
    model = posterior.factors[0][0]
    both = torch.cat([y, 10 * model.operator.apply(x), torch.zeros_like(y)])
    fits = stopped_fit(Measured(model, both))
    for row in range(3):
        alone = stopped_fit(Measured(model, both[row : row + 1]))
        torch.testing.assert_close(fits[row : row + 1], alone, rtol=1e-8, atol=1e-10)
    assert not fits[2].any()
    for sigma, dtype in ((1e-3, DOUBLE), (1e-5, DOUBLE), (1e-3, torch.float32)):
        y = model.operator.apply(x.to(dtype))
        fit = stopped_fit(Measured(LinearGaussian(model.operator, sigma), y))
        assert rms(model.operator.apply(fit) - y) <= 1.01 * sigma
    tiny = stopped_fit(Measured(LinearGaussian(model.operator, 1e-12), y))  # y in float32
    assert rms(model.operator.apply(tiny) - y) <= 1e-4 * rms(y)


def test_a_run_over_a_scan_goes_on_from_a_state_as_if_it_never_stopped():
    posterior, _, _ = scanned(0.5)
    for name in ("medical-projection", "ddnm"):
        states = []
        recipe = find(name).recipe(posterior, 6)
        whole = recipe.sampler(recipe.prior, 2, dtype=DOUBLE, callback=states.append)
        recipe, state = find(name).recipe(posterior, 6), states[2]
        rest = recipe.sampler(
            recipe.prior, start=state.x, first_step=state.index, history=state.history
        )
        assert torch.equal(rest, whole)


@pytest.mark.parametrize("sigma", [1e-4, 0.05, 0.5])
def test_undersampled_k_space_of_real_images_under_medical_projection(sigma):
    """No SVD, complex y; singular values from 1 / sqrt 2 to 1: believed in full, as by A^+."""
    lines = gaussian_lines(SIZE, 2, 4, generator=torch.Generator().manual_seed(1))
    mri = MRI(lines, image_shape=(SIZE, SIZE)) @ RealToComplex(image_shape=(1, SIZE, SIZE))
    assert mri.svd is None
    prior = priors.Gaussian(torch.zeros(1, SIZE, SIZE, dtype=DOUBLE), smooth_prior())
    g = torch.Generator().manual_seed(0)
    x = prior.sample(1, generator=g)
    model = LinearGaussian(mri, sigma)
    y = model.simulate(x, g)
    assert y.is_complex()
    posterior = inverse.condition(prior, model, y)
    believed = Problem(posterior).believed.y
    A = mri.apply(torch.eye(SIZE**2, dtype=DOUBLE).reshape(-1, 1, SIZE, SIZE)).flatten(1).T
    A, flat = torch.cat([A.real, A.imag]), torch.cat([y.real.flatten(), y.imag.flatten()])
    fit = torch.linalg.pinv(A, rtol=1e-9) @ flat
    torch.testing.assert_close(stopped_fit(Measured(model, y)).flatten(), fit)
    paper = {"relaxation": 1.0, "snr": 0.517}
    errors = []
    for steps in (20, 80):
        found = inverse.sample(
            posterior, n=2, method="medical-projection", steps=steps, seed=0, **paper
        )
        expected = believed.expand(2, -1, -1, -1)
        torch.testing.assert_close(mri.apply(found.x), expected, rtol=1e-6, atol=1e-6)
        errors.append(rms(found.x - x))
    assert errors[1] < 1.1 * errors[0], errors
    bound = float(prior.condition(model, y).mean.sub(x).square().mean().sqrt())
    assert errors[1] < 2 * bound + sigma, (errors, bound)


def test_score_sde_colours_a_grey_image_with_and_without_an_svd():
    """Grey = weighted channels: every sample has the grey of y, and colours of its own."""
    weights = torch.tensor([[0.3, 0.59, 0.11]], dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(3, 8, 8, dtype=DOUBLE), 1.0)
    g = torch.Generator().manual_seed(0)
    x = prior.sample(1, generator=g)

    grey = ChannelMixing(weights, image_shape=(3, 8, 8))
    plain = from_function(grey.apply, (3, 8, 8))
    assert plain.svd is None
    found = []
    for operator in (grey, plain):
        model = LinearGaussian(operator, 0.05)
        y = operator.apply(x)
        posterior = inverse.condition(prior, model, y)
        samples = inverse.sample(posterior, n=3, method="score-sde", steps=30, seed=0).x
        torch.testing.assert_close(operator.apply(samples), y.expand(3, -1, -1, -1))
        assert float(samples.std(0).mean()) > 0.5
        found.append(samples)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_iterations_are_an_option_of_every_projection():
    for name in PROJECTIONS:
        assert find(name).options["iterations"] == (10 if name == "medical-projection" else 50)
        with pytest.raises(ValueError, match="iterations"):
            inverse.sample(POSTERIORS["linear"](), method=name, steps=4, iterations=0)


def test_only_solutions_start_from_the_step_before():
    """A fixed number of conjugate gradients starts at x0: nothing of a step is kept for it."""
    for iterations, memory in ((None, 1), (5, 0)):
        update = Renewed(ProximalMap(Slack(), iterations), Fresh())
        assert Splitting(LEVELS, Mean(), update).memory == memory
