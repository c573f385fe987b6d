"""The priors that the contract is run over, and linear models to condition them on."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from published_score_sde import RESIDUAL, case, save
from safetensors.torch import save_file
from torch import Tensor

from priors import (
    VE,
    VP,
    Circulant,
    ClassifierFreeGuidance,
    Cosine,
    Empirical,
    FactorAnalysis,
    Flow,
    Gaussian,
    Kronecker,
    LatentPrior,
    LowRank,
    Mixture,
    NetworkPrior,
    Prior,
    SubVP,
    fit_mixture,
    from_network,
    load,
)
from priors.pretrained.networks.adm_unet import AdmArchitecture, AdmUNet
from priors.pretrained.networks.song_unet import SongArchitecture, SongUNet


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 + normal(*shape, seed=seed) ** 2


def _weights(count: int) -> Tensor:
    raw = positive(count, seed=7)
    return raw / raw.sum()


def spd(size: int, seed: int = 0) -> Tensor:
    root = normal(size, size, seed=seed)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)


def spectrum(height: int, width: int) -> Tensor:
    """The power of a smooth stationary field."""
    k = torch.fft.fftfreq(height, dtype=torch.float64)[:, None] * height
    m = torch.fft.fftfreq(width, dtype=torch.float64)[None] * width
    return 2 / (1 + k**2 + m**2)


class Matrix:
    """A linear operator by its matrix (M, D), for events and measurements of any shape."""

    def __init__(self, A, event_shape, shape=None, measured=None):
        self.A, self.event_shape, self.measured = A, tuple(event_shape), measured
        self.shape = (A.shape[0],) if shape is None else tuple(shape)

    def __call__(self, x):
        return (x.reshape(x.shape[0], -1).to(self.A.dtype) @ self.A.T).reshape(-1, *self.shape)

    def adjoint(self, y):
        return (y.reshape(y.shape[0], -1) @ self.A.conj()).reshape(-1, *self.event_shape)


class Mask:
    """Keep some values of the event; the others of y are 0 and no data."""

    def __init__(self, measured):
        self.measured = measured

    def __call__(self, x):
        return torch.where(self.measured, x, 0.0)

    adjoint = __call__


def linear(A, prior, variance=0.3, shape=None, measured=None):
    operator = Matrix(A, prior.event_shape, shape, measured)
    return SimpleNamespace(
        operator=operator, noise_variance=torch.as_tensor(variance, dtype=torch.float64)
    )


def masked(measured, variance=0.3):
    return SimpleNamespace(
        operator=Mask(measured), noise_variance=torch.as_tensor(variance, dtype=torch.float64)
    )


def _posterior(prior, rows=2):
    A = normal(rows, math.prod(prior.event_shape), seed=90)
    return prior.condition(linear(A, prior), normal(rows, seed=91))


class AtomLikelihood:
    """log p(y | x) of y = |x|^2 + noise: not linear, for the data set's exact posterior."""

    def log_likelihood(self, y, x):
        return -((y - x.reshape(x.shape[0], -1).square().sum(-1)) ** 2) / 2


GAUSSIANS = {
    "scalar": lambda: Gaussian(normal(4), 0.7),
    "single value": lambda: Gaussian(torch.tensor(0.3, dtype=torch.float64), 2.0),
    "diagonal": lambda: Gaussian(normal(2, 3), positive(2, 3)),
    "dense": lambda: Gaussian(normal(4), spd(4)),
    "dense image": lambda: Gaussian(normal(2, 1, 2), spd(4, seed=1)),
    "circulant": lambda: Gaussian(normal(4, 3), Circulant(spectrum(4, 3))),
    "circulant channels": lambda: Gaussian(
        normal(2, 2, 4), Circulant(spectrum(2, 4), event_shape=(2, 2, 4))
    ),
    "circulant per channel": lambda: Gaussian(
        normal(2, 3, 2), Circulant(torch.stack([spectrum(3, 2), 3 * spectrum(3, 2)]))
    ),
    "low rank": lambda: Gaussian(normal(1, 2, 3), LowRank(normal(6, 2), 0.3)),
    "factor analysis": lambda: Gaussian(normal(2, 3), FactorAnalysis(normal(6, 2), positive(2, 3))),
    "kronecker": lambda: Gaussian(normal(3, 2), Kronecker(spd(3), spd(2))),
    "kronecker channels": lambda: Gaussian(
        normal(2, 2, 3), Kronecker(spd(2), spd(2, seed=1), spd(3), variance=0.2)
    ),
    "posterior of low rank": lambda: _posterior(Gaussian(normal(6), LowRank(normal(6, 2), 0.3))),
    "posterior": lambda: _posterior(Gaussian(normal(2, 2), spd(4))),
    "posterior under a mask": lambda: Gaussian(normal(4), positive(4)).condition(
        masked(torch.tensor([True, False, True, False])), normal(4, seed=3)
    ),
}
SINGULAR = {
    "singular dense": lambda: Gaussian(normal(4), normal(4, 2) @ normal(4, 2).T),
    "singular kronecker": lambda: Gaussian(
        normal(2, 3), Kronecker(spd(2), normal(3, 1) @ normal(3, 1).T)
    ),
    "singular diagonal": lambda: Gaussian(normal(3), torch.tensor([1.0, 0.0, 2.0])),
    "singular low rank": lambda: Gaussian(normal(5), LowRank(normal(5, 2))),
    "one point": lambda: Gaussian(normal(3), 0.0),
    "mixture of points": lambda: Mixture(
        2 * normal(3, 2), 0.0, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    ),
    "mixture of thin layers": lambda: Mixture(
        2 * normal(2, 4), [LowRank(normal(4, 1)), LowRank(normal(4, 2))], _weights(2)
    ),
    "mixture of lines": lambda: Mixture(
        2 * normal(2, 2), torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([0.5, 0.5])
    ),
    "data set": lambda: Empirical(normal(30, 3)),
    "weighted data set": lambda: Empirical(normal(8, 2, 1), (w := positive(8)) / w.sum()),
    "posterior data set": lambda: Empirical(normal(12, 2)).condition(
        AtomLikelihood(), torch.tensor(1.5)
    ),
}


MIXTURES = {
    "mixture, one variance": lambda: Mixture(2 * normal(3, 2), 0.4, _weights(3)),
    "mixture, variances": lambda: Mixture(2 * normal(3, 1, 2, 2), positive(3), _weights(3)),
    "mixture, one matrix": lambda: Mixture(2 * normal(4, 3), spd(3), _weights(4)),
    "mixture, matrices": lambda: Mixture(
        2 * normal(3, 2), torch.stack([spd(2, seed=k) for k in range(3)]), _weights(3)
    ),
    "mixture of low rank": lambda: Mixture(
        2 * normal(3, 2, 3),
        [LowRank(normal(6, r, seed=r), 0.1 * r) for r in (1, 2, 3)],
        _weights(3),
    ),
    "mixture of fields": lambda: Mixture(
        2 * normal(2, 2, 3), Circulant(spectrum(2, 3)), _weights(2)
    ),
    "mixture of all kinds": lambda: Mixture(
        2 * normal(6, 2, 2),
        [
            spd(4),
            Circulant(spectrum(2, 2)),
            Kronecker(spd(2), spd(2, seed=1)),
            LowRank(normal(4, 1), 0.2),
            FactorAnalysis(normal(4, 2), positive(4)),
            Gaussian(normal(2, 2), positive(2, 2)).C,
        ],
        _weights(6),
    ),
    "mixture with an empty component": lambda: Mixture(
        2 * normal(2, 2), 0.5, torch.tensor([1.0, 0.0])
    ),
    "posterior mixture": lambda: _posterior(Mixture(2 * normal(3, 2, 2), 0.6, _weights(3))),
}


def factor_mixture() -> Mixture:
    """Two components apart, with two factors each."""
    covariances = [
        FactorAnalysis(normal(12, 2, seed=k), 0.1 * positive(12, seed=k)) for k in (1, 2)
    ]
    return Mixture(3 * normal(2, 1, 3, 4), covariances, torch.tensor([0.3, 0.7]))


def _fitted() -> Mixture:
    pytest.importorskip("sklearn")
    images = factor_mixture().sample(100, torch.Generator().manual_seed(0)).double()
    return fit_mixture(images, 2, 2, iterations=3)


MIXTURES["fitted mixture"] = _fitted
EXACT = GAUSSIANS | MIXTURES | SINGULAR
SMOOTH = GAUSSIANS | MIXTURES

SCHEDULES = {"VE": VE(), "VP": VP(), "SubVP": SubVP(), "Cosine": Cosine(), "Flow": Flow()}


def exact_network(prior, parametrization, schedule, sign=1, sigma_data=0.5):
    """The network that a perfectly trained prior (in network units) would be."""

    def edm(x_t, time):
        sigma = (4 * time).exp().reshape(-1, *[1] * (x_t.ndim - 1))
        total = sigma**2 + sigma_data**2
        x = x_t * total.sqrt()
        skip = sigma_data**2 / total
        x0 = prior.denoise(x, sigma.flatten())
        return sign * (x0 - skip * x) / (sigma * sigma_data / total.sqrt())

    def network(x_t, time):
        if parametrization == "flow":
            t = time / 1000
        elif parametrization == "score" and isinstance(schedule, VE):
            t = schedule.t(time)
        else:
            t = time / 999
        column = (-1, *[1] * (x_t.ndim - 1))
        sigma = schedule.sigma(t).to(x_t.dtype).reshape(column)
        alpha = schedule.alpha(t).to(x_t.dtype).reshape(column)
        x = x_t / alpha
        x0 = prior.denoise(x, sigma.flatten())
        eps = (x - x0) / sigma
        return {
            "epsilon": eps,
            "v": alpha * eps - alpha * sigma * x0,
            "x0": x0,
            "score": -eps / (alpha * sigma),
            "flow": eps - x0,
        }[parametrization]

    return edm if parametrization == "edm" else network


NETWORKS = {
    f"{parametrization} {name}": (parametrization, {"schedule": schedule}, {})
    for parametrization in ("epsilon", "v", "x0", "score", "flow")
    for name, schedule in SCHEDULES.items()
} | {
    "edm": ("edm", {}, {}),
    "edm, minus F": ("edm", {"edm_sign": -1}, {"sign": -1}),
    "edm, wide data": ("edm", {"sigma_data": 1.3}, {"sigma_data": 1.3}),
    "epsilon by default": ("epsilon", {}, {}),
    "score by default": ("score", {}, {}),
    "flow by default": ("flow", {}, {}),
}


def network_prior(name: str, inner) -> NetworkPrior:
    """`inner` in network units (-1, 1), as a network prior in data units (0, 1)."""
    parametrization, settings, twist = NETWORKS[name]
    default = {"flow": Flow(), "score": VE()}.get(parametrization, VP())
    schedule = settings.get("schedule", default)
    network = exact_network(inner, parametrization, schedule, **twist)
    return NetworkPrior(
        network,
        parametrization,
        inner.event_shape,
        data_range=(0.0, 1.0),
        network_range=(-1.0, 1.0),
        **settings,
    )


def inner_prior() -> Mixture:
    return Mixture(0.5 * normal(3, 1, 2, 2), 0.05, _weights(3))


def _loaded(network, settings) -> NetworkPrior:
    """A checkpoint of a network with random weights, written and loaded, in float64."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        for name, value in network.state_dict().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(state, path)
        return load(path, settings=settings, dtype=torch.float64)


def _loaded_adm() -> NetworkPrior:
    made_of = AdmArchitecture(3, 6, 32, (32,), 1, (True,), None, True, True, False)
    flags = {"image_size": 4, "num_heads": 1, "use_new_attention_order": False}
    return _loaded(AdmUNet(made_of), flags | {"noise_schedule": "linear"})


def _loaded_edm() -> NetworkPrior:
    made_of = SongArchitecture(
        in_channels=3, out_channels=3, size=4, width=8, channels=(8,), blocks=1,
        attention=(True,), noise_width=8, embedding=8, classes=None, fourier=False,
        encoder="standard", decoder="standard", taps=2,
    )  # fmt: skip
    return _loaded(SongUNet(made_of), {"class_name": "VEPrecond"})


def _loaded_score_sde() -> NetworkPrior:
    config = case(RESIDUAL, model_ch_mult=[1])
    with tempfile.TemporaryDirectory() as folder:
        return load(save(config, Path(folder))[0], settings=config, dtype=torch.float64)


def _diffusers() -> Prior:
    # Where it is asked for: importing diffusers takes seconds.
    from diffusers import DDPMScheduler
    from pipelines import tiny, write

    with tempfile.TemporaryDirectory() as folder:
        return load(write(Path(folder), tiny(), DDPMScheduler()), dtype=torch.float64)


def _stable_diffusion() -> Prior:
    from latent_pipelines import prompt, stable_diffusion

    with tempfile.TemporaryDirectory() as folder:
        written = stable_diffusion(Path(folder))
        return load(written, prompt_embeds=prompt(), dtype=torch.float64)


def _diffusion_transformer() -> Prior:
    from latent_pipelines import diffusion_transformer

    with tempfile.TemporaryDirectory() as folder:
        written = diffusion_transformer(Path(folder))
        return load(written, class_label=3, guidance_scale=4.0, dtype=torch.float64)


# Images of many values, or networks of random weights, whose denoisers are no posterior means: all
# that a prior promises but the symmetry of its covariance.
LOADED = {
    "ADM": _loaded_adm,
    "EDM": _loaded_edm,
    "NCSN++": _loaded_score_sde,
    "DDPM": _diffusers,
    "digits": lambda: load("digits", dtype=torch.float64),
    "digits mixture": lambda: load("digits-mixture"),
    "Stable Diffusion": _stable_diffusion,
    "diffusion transformer": _diffusion_transformer,
}

CONTRACT = EXACT | {
    f"network {name}": lambda name=name: network_prior(name, inner_prior())
    for name in ("epsilon VP", "score VE", "v Cosine", "flow Flow", "edm")
}
CONTRACT["network of one's own"] = lambda: from_network(
    exact_network(inner_prior(), "v", VP()), "v", event_shape=(1, 2, 2), data_range=(0.0, 1.0)
)
CONTRACT["guided"] = lambda: ClassifierFreeGuidance(
    Gaussian(normal(2, 2), spd(4)), Gaussian(normal(2, 2, seed=1), 0.3 * spd(4)), 1.3
)
CONTRACT["latent"] = lambda: LatentPrior(
    inner_prior(), SimpleNamespace(decode=lambda z: z.tanh()), image_shape=(1, 2, 2)
)
