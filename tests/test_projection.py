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
    Downsampling,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    RealToComplex,
    gaussian_kernel,
)
from inverse.likelihoods import Measured
from inverse.recipes import find
from inverse.samplers import AdaptiveODE, Ancestral, Multistep, PredictorCorrector, TimeTravel
from inverse.splitting import Mean, Partly, Projected, Projection, Renewed, Spectral, Splitting
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


def test_a_projection_is_the_nearest_consistent_image():
    """Without an SVD, too: by conjugate gradients on the normal equations."""
    prior, model, y, x = problem()
    A = model.operator.matrix.to(DOUBLE)

    class Plain(MatrixOperator):
        svd = None

    for operator in (model.operator, Plain(A)):
        posterior = inverse.condition(prior, LinearGaussian(operator, 0.2), y)
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
