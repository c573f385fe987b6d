"""Projection of clean images and noisy states, and spectral steps: their recursions and limits."""

from __future__ import annotations

import math

import pytest
import torch
from method_cases import POSTERIORS
from problems import DOUBLE, problem
from splitting_laws import LEVELS, denoised, gaussian_case, law, recursion

import inverse
import priors
from forward_models import Inpainting, LinearGaussian, MatrixOperator
from inverse.recipes import find
from inverse.samplers import AdaptiveODE, Ancestral, Multistep, PredictorCorrector, TimeTravel
from inverse.splitting import Mean, Partly, Projected, Projection, Renewed, Spectral, Splitting

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


def test_ddnm_follows_its_recursion():
    """z = x0 + A^+ (y - A x0), x' = z + DDIM noise as the prior sees it."""
    posterior, m, C, A, y = gaussian_case()
    P = torch.linalg.pinv(A)
    eta = 0.85

    def step(sigma, ahead):
        D, d = denoised(m, C, sigma)
        c = eta * ahead / sigma * math.sqrt(sigma**2 - ahead**2)
        k = math.sqrt(ahead**2 - c**2) / sigma
        N = EYE - P @ A
        return N @ D + k * (EYE - D), N @ d + P @ y - k * d, c**2 * EYE

    sampler = Splitting(LEVELS, Mean(), Renewed(Projection(), Partly(eta)))
    follows(sampler, posterior, step, m, C)


@pytest.mark.parametrize("relaxation", [1.0, 0.7])
def test_projected_states_follow_their_recursion(relaxation):
    """x' <- x' + relaxation A^+ (y + sigma' A z - A x') after each ancestral step."""
    posterior, m, C, A, y = gaussian_case()
    P = torch.linalg.pinv(A)

    def step(sigma, ahead):
        D, d = denoised(m, C, sigma)
        c = ahead / sigma * math.sqrt(sigma**2 - ahead**2)
        k = math.sqrt(ahead**2 - c**2) / sigma
        share = relaxation if ahead > 0 else 1.0
        N = EYE - share * P @ A
        Q = c**2 * N @ N.T + (share * ahead) ** 2 * (P @ A) @ (P @ A).T
        return N @ (D + k * (EYE - D)), N @ (d - k * d) + share * P @ y, Q

    follows(Projected(Ancestral(LEVELS), relaxation), posterior, step, m, C)


def test_a_projection_is_the_nearest_consistent_image():
    """Without an SVD, too: by conjugate gradients on the normal equations."""
    prior, model, y, x = problem()
    A = model.operator.matrix.to(DOUBLE)

    class Plain(MatrixOperator):
        svd = None

    for operator in (model.operator, Plain(A)):
        posterior = inverse.condition(prior, LinearGaussian(operator, 0.2), y)
        from test_splitting import seen

        z = Projection()(seen(posterior, x))
        torch.testing.assert_close(z, x + (y - x @ A.T) @ torch.linalg.pinv(A).T)


def test_measured_pixels_of_a_mask_end_at_y():
    """RePaint, ILVR, score-SDE and MCG return y where it was measured, to rounding."""
    prior = priors.Gaussian(torch.zeros(1, 4, 4, dtype=DOUBLE), 1.0)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[:2] = False
    y = torch.linspace(-1, 1, 16, dtype=DOUBLE).reshape(1, 1, 4, 4)
    posterior = inverse.condition(prior, LinearGaussian(Inpainting(mask), 0.01), y)
    for name in ("repaint", "ilvr", "score-sde", "mcg", "medical-projection", "ddnm"):
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
    for relaxation in (0.0, 1.5):
        with pytest.raises(ValueError, match="relaxation must"):
            Projected(PredictorCorrector(Ancestral(LEVELS)), relaxation)
    with pytest.raises(TypeError, match="linear measurements"):
        Projected(Ancestral(LEVELS))(POSTERIORS["curved"](), 2, dtype=DOUBLE)
    prior, model, y, _ = problem()
    coloured = LinearGaussian(model.operator, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"noise is not white.*Methods that can: .*ddnm"):
        inverse.sample(inverse.condition(prior, coloured, y), method="ddrm")
