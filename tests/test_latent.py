"""Latent priors: decoded posteriors against closed forms, and against diffusers' autoencoders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from operator_cases import rng
from prior_cases import normal, spd

import forward_models as fm
import inverse
import priors
from inverse.decoder import Decoder
from inverse.samplers import DivergenceError
from priors import ClassifierFreeGuidance, Gaussian, LatentPrior

LATENT, IMAGE = (1, 2, 2), (1, 2, 3)


class LinearAutoencoder:
    """x = W z + b; what it encodes to is the least-squares answer."""

    def __init__(self):
        self.W, self.b = normal(6, 4, seed=20), normal(6, seed=21)
        self.decoded = 0

    def decode(self, z):
        self.decoded += len(z)
        return (z.flatten(1) @ self.W.to(z).T + self.b.to(z)).reshape(-1, *IMAGE)

    def encode(self, x):
        centred = (x.flatten(1) - self.b.to(x)).T
        return torch.linalg.lstsq(self.W.to(x), centred).solution.T.reshape(-1, *LATENT)


def latent_gaussian(**settings):
    return LatentPrior(Gaussian(normal(*LATENT, seed=22), spd(4)), LinearAutoencoder(), **settings)


def affine(prior):
    """(M, c) of the image x = M z + c, by decoding unit latents."""
    zero = torch.zeros(1, *LATENT, dtype=torch.float64)
    c = prior.decode(zero).flatten()
    units = torch.eye(4, dtype=torch.float64).reshape(4, *LATENT)
    return (prior.decode(units).flatten(1) - c).T, c


def tiny_kl(seed=0, **config):
    settings = {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(**{**settings, **config}).eval().requires_grad_(False)


# --- a linear decoder over a Gaussian: everything is known ----------------------------------------

SETTINGS = {
    "plain": {},
    "ranges and standardised latents": {
        "image_range": (0.0, 10.0),
        "latent_mean": 0.3,
        "latent_std": torch.tensor([1.7]),
    },
}


def exact_posterior(prior, models, ys):
    """N(m, C) of latents given all measurements, by numpy's information form."""
    M, c = (t.numpy() for t in affine(prior))
    mean, C = (t.numpy() for t in prior.prior.moments())
    precision, pull = np.linalg.inv(C), np.linalg.solve(C, mean.ravel())
    for (A, sigma), y in zip(models, ys, strict=True):
        B = A.numpy() @ M
        precision = precision + B.T @ B / sigma**2
        pull = pull + B.T @ (y.numpy() - A.numpy() @ c) / sigma**2
    C = np.linalg.inv(precision)
    return torch.as_tensor(C @ pull), torch.as_tensor(C)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_mmps_reaches_the_exact_posterior_of_latents_and_images(settings):
    prior = latent_gaussian(**settings)
    models = [(normal(2, 6, seed=1), 0.5), (normal(1, 6, seed=2), 0.8)]
    ys = [normal(2, seed=3), normal(1, seed=4)]
    m, C = exact_posterior(prior, models, ys)
    first, second = (
        fm.LinearGaussian(fm.MatrixOperator(A, event_shape=IMAGE), sigma) for A, sigma in models
    )
    posterior = inverse.condition(prior, first, ys[0]).given(second, ys[1])
    n = 2000
    samples = inverse.sample(posterior, n=n, method="mmps", steps=60, seed=0)
    assert samples.x.shape == (n, *IMAGE)
    assert samples.latents.shape == (n, *LATENT)
    M, c = affine(prior)
    for found, mean, covariance in (
        (samples.latents, m, C),
        (samples.x, M @ m + c, M @ C @ M.T),
    ):
        found, scale = found.flatten(1), covariance.diagonal().sqrt()
        assert float(((found.mean(0) - mean) / scale).abs().max()) < 4.5 / math.sqrt(n)
        error = (torch.cov(found.T) - covariance) / (scale[:, None] * scale)
        assert float(error.abs().max()) < 6 / math.sqrt(n)
    torch.testing.assert_close(samples.x, prior.decode(samples.latents))
    residual = (ys[0] - samples.x.flatten(1) @ models[0][0].T) / 0.5
    expected = residual.square().mean(1).sqrt()
    found = torch.tensor(samples.diagnostics["residual_sigma"][0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_the_shift_is_exact_at_every_level_and_many_measurements_share_one_decoding():
    """E[z0 | z, y] under a Gaussian, by the posterior's own closed form."""
    prior = latent_gaussian()
    models = [(normal(2, 6, seed=1), 0.5), (normal(1, 6, seed=2), 0.8)]
    ys = [normal(2, seed=3), normal(1, seed=4)]
    m, C = exact_posterior(prior, models, ys)
    closed = Gaussian(m.reshape(LATENT), C)
    factors = [
        (fm.LinearGaussian(fm.MatrixOperator(A, event_shape=IMAGE), sigma), y)
        for (A, sigma), y in zip(models, ys, strict=True)
    ]
    posterior = inverse.condition(prior, *factors[0])
    one = prior.autoencoder.decoded
    z = normal(3, *LATENT, seed=9)
    posterior.denoise(z, 0.5)
    one = prior.autoencoder.decoded - one
    both = posterior.given(*factors[1])
    for sigma in (0.01, 0.5, 10.0):
        torch.testing.assert_close(
            both.denoise(z, sigma), closed.denoise(z, sigma), rtol=1e-5, atol=1e-6
        )
    before = prior.autoencoder.decoded
    both.denoise(z, 0.5)
    # A third value takes one more iteration, not another decoding for each measurement.
    assert prior.autoencoder.decoded - before <= 1.5 * one


def test_unconditional_samples_are_decoded():
    prior = latent_gaussian()
    samples = inverse.sample(prior, n=3000, steps=60, seed=1, dtype=torch.float64)
    M, c = affine(prior)
    mean, C = prior.prior.moments()
    scale = (M @ C @ M.T).diagonal().sqrt()
    error = (samples.x.flatten(1).mean(0) - M @ mean.flatten() - c) / scale
    assert float(error.abs().max()) < 4.5 / math.sqrt(3000)
    assert samples.mean.shape == samples.std.shape == IMAGE


def test_poisson_counts_and_a_classifier_of_images():
    """Other forward models of images follow the decoder: each has the gradient of its density."""
    prior = latent_gaussian(image_range=(4.0, 8.0))

    class Bright(fm.ForwardModel):
        event_shape, measurement_shape = IMAGE, ()

        def log_likelihood(self, y, x):
            return torch.nn.functional.logsigmoid(x.mean((1, 2, 3)) - 6)

        def check_measurement(self, y):
            return y.reshape(1)

        def simulate(self, x, generator=None):
            return torch.ones(len(x))

    counts = fm.Observation(fm.Identity(), fm.Poisson(5.0))
    posterior = inverse.condition(prior, Bright(), torch.tensor(1))
    z = normal(3, *LATENT, seed=9)
    leaf = z.clone().requires_grad_()
    x0 = prior.denoise(leaf, 0.4)
    (gradient,) = torch.autograd.grad(
        torch.nn.functional.logsigmoid(prior.decode(x0).mean((1, 2, 3)) - 6).sum(), leaf
    )
    expected = prior.denoise(z, 0.4) + 0.4**2 * gradient
    torch.testing.assert_close(posterior.denoise(z, 0.4), expected)
    truth = 6 + 0.1 * normal(1, *IMAGE).abs()
    both = posterior.given(counts, counts.simulate(truth, rng()))
    samples = inverse.sample(both, n=8, steps=30, seed=0)
    assert 0.5 < samples.diagnostics["reduced_chi2"] < 2


def test_time_dependent_models_are_of_latents():
    prior = latent_gaussian()

    class Towards(fm.TimeDependent):
        event_shape = LATENT

        def log_likelihood(self, y, x, sigma):
            return -x.flatten(1).square().sum(1) / 2

    z = normal(3, *LATENT, seed=9)
    posterior = inverse.condition(prior, Towards(), torch.tensor(0.0))
    torch.testing.assert_close(posterior.denoise(z, 0.5), prior.denoise(z, 0.5) - 0.25 * z)
    Towards.event_shape = IMAGE
    with pytest.raises(ValueError, match="a time-dependent model is of latents"):
        inverse.condition(prior, Towards(), torch.tensor(0.0))


# --- the front door -------------------------------------------------------------------------------


def inpainting(shape, sigma=0.05):
    keep = torch.ones(shape[-2:], dtype=torch.bool)
    keep[: shape[-2] // 2, : shape[-1] // 2] = False
    return fm.LinearGaussian(fm.Inpainting(keep), sigma)


def test_methods_that_need_a_linear_model_refuse_and_say_why():
    prior = latent_gaussian()
    posterior = inverse.condition(prior, inpainting(IMAGE), torch.zeros(IMAGE).double())
    for method in ("pigdm", "dds"):
        with pytest.raises(ValueError, match=r"follows a decoder.*mmps"):
            inverse.sample(posterior, method=method)
    with pytest.raises(ValueError, match="no closed form under LatentPrior"):
        inverse.sample(posterior, method="exact")
    samples = inverse.sample(posterior, n=2, method="dps", steps=10, seed=0)
    assert samples.x.shape == (2, *IMAGE)
    assert inverse.sample(posterior, steps=5, seed=0).diagnostics["method"] == "mmps"


def test_images_of_another_shape_are_refused():
    prior = latent_gaussian()
    A = fm.MatrixOperator(normal(2, 4), event_shape=LATENT)
    with pytest.raises(ValueError, match=r"decode to \(1, 2, 3\), the forward model takes"):
        inverse.condition(prior, fm.LinearGaussian(A, 0.1), normal(2))


def test_sampling_in_batches_restarted_and_saved(tmp_path):
    prior = latent_gaussian()
    posterior = inverse.condition(prior, inpainting(IMAGE), normal(*IMAGE, seed=5))
    whole = inverse.sample(posterior, n=4, steps=6, seed=3)
    alone = inverse.sample(posterior, n=2, steps=6, seed=3, batch=1)
    torch.testing.assert_close(alone.x, whole.x[:2])

    def stop(step):
        if step.index == 8:
            raise DivergenceError("cut")

    folder = tmp_path / "run"
    with pytest.raises(DivergenceError):
        inverse.sample(posterior, n=4, steps=6, seed=3, batch=2, checkpoint=folder, callback=stop)
    again = inverse.sample(posterior, n=4, steps=6, seed=3, batch=2, checkpoint=folder)
    torch.testing.assert_close(again.x, whole.x)
    out = again.save(tmp_path / "out")
    assert np.load(out / "samples.npy").shape == (4, *IMAGE)
    np.testing.assert_array_equal(np.load(out / "latents.npy"), again.latents.numpy())
    np.testing.assert_array_equal(np.load(out / "mean.npy"), again.mean.numpy())


# --- autoencoders ---------------------------------------------------------------------------------


def test_toy_encoder_and_decoder_are_inverse():
    for settings in SETTINGS.values():
        prior = latent_gaussian(**settings)
        z = normal(5, *LATENT, seed=7)
        mode, std = prior.encode(prior.decode(z))
        torch.testing.assert_close(mode, z)
        assert torch.equal(std, torch.zeros_like(z))


KL = {
    "scaling_factor": {"scaling_factor": 0.18215},
    "shift_factor": {"scaling_factor": 1.5305, "shift_factor": 0.0609},
    "latents_mean and latents_std": {
        "scaling_factor": 0.5,
        "latents_mean": (0.1, -0.2, 0.3, 0.4),
        "latents_std": (1.0, 2.0, 0.5, 1.5),
    },
}


@pytest.mark.parametrize("config", KL.values(), ids=KL.keys())
@torch.no_grad()
def test_autoencoder_kl_in_the_units_of_the_latent_prior(config):
    """As diffusers' pipelines scale latents, written out."""
    vae = tiny_kl(**config)
    prior = LatentPrior(Gaussian(torch.zeros(4, 4, 4), 1.0), vae, image_range=(0.0, 1.0))
    assert prior.image_shape == (3, 8, 8)
    z = normal(2, 4, 4, 4).float()
    mean = torch.tensor(config.get("latents_mean", (config.get("shift_factor", 0.0),) * 4))
    std = torch.tensor(config.get("latents_std", (1.0,) * 4)) / config["scaling_factor"]
    mean, std = mean[:, None, None], std[:, None, None]
    expected = vae.decode(z * std + mean).sample / 2 + 0.5
    torch.testing.assert_close(prior.decode(z), expected, rtol=1e-5, atol=1e-6)
    assert prior.decode(z.double()).dtype == torch.float64
    x = torch.rand(2, 3, 8, 8, generator=rng())
    q = vae.encode(2 * x - 1).latent_dist
    mode, spread = prior.encode(x)
    torch.testing.assert_close(mode, (q.mode() - mean) / std, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(spread, q.std / std, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_vq_autoencoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VQModel(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            num_vq_embeddings=16,
        ).eval()
    prior = LatentPrior(Gaussian(torch.zeros(3, 4, 4), 1.0), vae)
    z = normal(2, 3, 4, 4).float()
    torch.testing.assert_close(prior.decode(z), vae.decode(z / 0.18215).sample)
    x = torch.rand(2, 3, 8, 8, generator=rng())
    torch.testing.assert_close(prior.encode(x)[0], vae.encode(x).latents * 0.18215)


def test_derivatives_of_a_decoder_with_attention():
    """J v and J^T u against differences and one another, in double precision."""
    vae = tiny_kl().double()
    decoder = Decoder(LatentPrior(Gaussian(torch.zeros(4, 4, 4), 1.0), vae))
    z, v = normal(2, 4, 4, 4), normal(2, 4, 4, 4, seed=1)
    u = normal(2, 3, 8, 8, seed=2)
    h = 1e-5
    slope = (decoder(z + h * v) - decoder(z - h * v)) / (2 * h)
    found = decoder.jvp(z, v)
    torch.testing.assert_close(found, slope, rtol=1e-5, atol=1e-7)
    left, right = (u * found).sum(), (decoder.vjp(z, u) * v).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=0)


def test_inpainting_through_a_real_decoder_fits_the_data():
    prior = LatentPrior(Gaussian(torch.zeros(4, 4, 4), 1.0), tiny_kl(scaling_factor=0.05))
    truth = prior.decode(normal(1, 4, 4, 4, seed=30).float())
    model = inpainting((3, 8, 8), 0.1)
    posterior = inverse.condition(prior, model, model.simulate(truth, rng()))
    samples = inverse.sample(posterior, n=3, steps=12, seed=0)
    free = inverse.sample(prior, n=4, steps=10, seed=0).x
    fit = samples.diagnostics["reduced_chi2"]
    assert 0.3 < fit < 4
    assert float(model.misfit(posterior.factors[0][1], free).square().mean()) > 3 * fit
    # The hole is not measured: samples differ there more than where they were.
    spread = samples.std.square().mean(0)
    assert float(spread[:4, :4].mean()) > 2 * float(spread[4:].mean())


# --- refusals -------------------------------------------------------------------------------------


def test_bad_arguments_are_named():
    gaussian, toy = Gaussian(torch.zeros(LATENT), 1.0), LinearAutoencoder()
    with pytest.raises(TypeError, match=r"priors\.Prior, got LinearAutoencoder"):
        LatentPrior(toy, toy)
    with pytest.raises(TypeError, match="must have decode"):
        LatentPrior(gaussian, gaussian)
    with pytest.raises(TypeError, match="got a LatentPrior"):
        LatentPrior(LatentPrior(gaussian, toy), toy)
    with pytest.raises(ValueError, match="latent_std must be positive"):
        LatentPrior(gaussian, toy, latent_std=0.0)
    with pytest.raises(ValueError, match="one value for each channel"):
        LatentPrior(gaussian, toy, latent_mean=torch.zeros(3))
    with pytest.raises(ValueError, match="low < high"):
        LatentPrior(gaussian, toy, image_range=(1, 0))
    with pytest.raises(ValueError, match=r"image_shape is \(1, 3, 3\), but .* images \(1, 2, 3\)"):
        LatentPrior(gaussian, toy, image_shape=(1, 3, 3))
    assert LatentPrior(gaussian, toy, image_shape=(1, 2, 3)).image_shape == (1, 2, 3)
    stated = LatentPrior(Gaussian(torch.zeros(4, 4, 4), 1.0), tiny_kl(), image_shape=(3, 9, 9))
    with pytest.raises(ValueError, match=r"to images \(2, .*, expected \(2, 3, 9, 9\)"):
        stated.decode(torch.zeros(2, 4, 4, 4))
    prior = LatentPrior(gaussian, toy)
    with pytest.raises(ValueError, match="x must be images"):
        prior.encode(torch.zeros(2, *LATENT))
    with pytest.raises(ValueError, match="x must have shape"):
        prior.decode(torch.zeros(2, *IMAGE))


def test_latents_that_the_autoencoder_does_not_take():
    with pytest.raises(ValueError, match=r"\(3, 4, 4\), AutoencoderKL takes latents of 4 channels"):
        LatentPrior(Gaussian(torch.zeros(3, 4, 4), 1.0), tiny_kl())
    with pytest.raises(ValueError, match=r"does not decode .* shape \(1, 2, 3\): .*"):
        LatentPrior(Gaussian(torch.zeros(1, 2, 3), 1.0), LinearAutoencoder())
    with torch.random.fork_rng():
        codes = VQModel(
            latent_channels=3, vq_embed_dim=2, norm_num_groups=4, block_out_channels=(8,)
        )
    prior = LatentPrior(Gaussian(torch.zeros(2, 4, 4), 1.0), codes.requires_grad_(False))
    assert prior.encode(prior.decode(torch.zeros(1, 2, 4, 4)))[0].shape == (1, 2, 4, 4)
    with pytest.raises(ValueError, match="VQModel takes latents of 2 channels"):
        LatentPrior(Gaussian(torch.zeros(3, 4, 4), 1.0), codes)


def test_densities_are_of_latents():
    prior = latent_gaussian()
    x = prior.decode(normal(2, *LATENT, seed=7))
    for call in (lambda: priors.log_prob(prior, x), lambda: prior.denoise(x, 1.0)):
        with pytest.raises(ValueError, match=r"of latents.*got images.*prior\.encode\(image\)"):
            call()
    z = prior.encode(x)[0]
    torch.testing.assert_close(
        priors.log_prob(prior, z), prior.prior.log_density(z), rtol=1e-3, atol=1e-3
    )


def test_guided_latents():
    """Guidance inside a latent prior is a prior like any other."""
    c, u = Gaussian(torch.ones(LATENT), 1.0), Gaussian(torch.zeros(LATENT), 1.0)
    prior = LatentPrior(ClassifierFreeGuidance(c, u, 2.0), LinearAutoencoder())
    z = normal(2, *LATENT)
    torch.testing.assert_close(prior.denoise(z, 1.0), (z + 2) / 2)
    assert isinstance(prior, priors.Prior)
