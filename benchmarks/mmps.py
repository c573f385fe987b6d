"""What three iterations of MMPS cost, over one forward and one backward pass of the network.

    pip install azula
    python benchmarks/mmps.py [--repeats 5]

One evaluation of E[x0 | x, y] by ours, `GaussianLift(model, y, Tweedie(iterations=3))`, and by
azula's `MMPSDenoiser(iterations=3)` with its two solvers, on the same network, noise level and
measurement, interleaved; medians of processor time over the repeats, on one thread. The unit is the
median of one recorded denoising and its vector-Jacobian product. Networks: the bundled prior of
photographs at 128 x 128, and an ADM U-Net with random weights at 64 x 64. Written to
benchmarks/results/mmps.json, with the network's passes counted, and how far our shift is from that
of the peer's least-residual solver (relative norm).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import azula
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance.mmps import MMPSDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import Schedule
from torch import Tensor

import inverse
import priors
from forward_models import Blur, Inpainting, LinearGaussian, gaussian_kernel
from inverse.likelihoods import GaussianLift, Tweedie
from priors.pretrained.networks.adm_unet import AdmArchitecture, AdmUNet

RESULTS = Path(__file__).parent / "results" / "mmps.json"
SIGMA_Y = 0.05


class Counted(priors.Prior):
    """A prior that counts its denoisings, recorded on the graph as they come."""

    def __init__(self, prior: priors.Prior) -> None:
        self.prior, self.event_shape = prior, prior.event_shape
        self.sigma_range, self.data_range = prior.sigma_range, prior.data_range
        self.forward = self.backward = 0

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.forward += 1
        x0 = self.prior.denoise(x, sigma.flatten())
        if x0.requires_grad:
            x0.grad_fn.register_prehook(self._pulled)
        return x0

    def _pulled(self, grads: tuple[Tensor, ...]) -> None:
        self.backward += 1


class RandomAdm(priors.Prior):
    """An ADM U-Net of random weights: a prior of nothing, at the cost of one."""

    event_shape = (3, 64, 64)
    sigma_range = (0.01, 100.0)

    def __init__(self) -> None:
        torch.manual_seed(0)
        made_of = AdmArchitecture(
            3, 3, 64, (64, 128, 192, 256), 1, (False, False, True, True), None, True, True, False,
            head_channels=64,
        )  # fmt: skip
        self.network = AdmUNet(made_of).eval().requires_grad_(False)
        for parameter in self.network.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.02 * torch.randn_like(parameter))

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        scale = (1 + sigma**2).sqrt()
        return x / scale**2 + sigma / scale * self.network(x / scale, sigma.flatten().log() / 4)


class Level(Schedule):
    """alpha = 1 and sigma = t."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t


class Wrapped(Denoiser):
    """A prior as azula's denoiser."""

    def __init__(self, prior: priors.Prior) -> None:
        super().__init__()
        self.prior, self.schedule = prior, Level()

    def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
        return DiracPosterior(self.prior.denoise(x_t, t))


def candidates(
    prior: priors.Prior, model: LinearGaussian, y: Tensor, x: Tensor, sigma: float
) -> dict[str, Callable[[], Tensor]]:
    posterior = inverse.condition(
        prior,
        model,
        y,
        lift=lambda m, z: GaussianLift(m, z, Tweedie(iterations=3, tolerance=1e-12)),
    )

    def unit() -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            x0 = prior.denoise(leaf, sigma)
            return torch.autograd.grad(x0, leaf, torch.ones_like(x0))[0]

    def peer(solver: str) -> Callable[[], Tensor]:
        denoiser = MMPSDenoiser(
            Wrapped(prior),
            y.flatten(1),
            lambda image: model.operator(image).flatten(1),
            IsotropicCovariance(torch.tensor(SIGMA_Y**2)),
            solver=solver,
            iterations=3,
        )
        return lambda: denoiser(x, torch.tensor(sigma)).mean

    return {
        "forward + backward": unit,
        "ours": lambda: posterior.denoise(x, sigma),
        "azula, gmres": peer("gmres"),
        "azula, cg": peer("cg"),
    }


def measure(prior: priors.Prior, repeats: int) -> list[dict[str, object]]:
    shape = prior.event_shape
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape[1:], generator=generator) < 0.5
    operators = {
        "inpainting": Inpainting(mask, channels=shape[0]),
        "blur": Blur(gaussian_kernel(2.0, 9), padding="circular"),
    }
    clean = torch.rand(1, *shape, generator=generator)
    rows = []
    for name, operator in operators.items():
        model = LinearGaussian(operator, SIGMA_Y)
        y = model.simulate(clean, generator)
        for sigma in (0.1, 1.0):
            x = clean + sigma * torch.randn(clean.shape, generator=generator)
            counted = Counted(prior)
            passes, answers = {}, {}
            for label, run in candidates(counted, model, y, x, sigma).items():
                counted.forward = counted.backward = 0
                answers[label] = run().detach()
                passes[label] = [counted.forward, counted.backward]
            times: dict[str, list[float]] = {label: [] for label in passes}
            runs = candidates(prior, model, y, x, sigma)
            for _ in range(repeats):
                for label, run in runs.items():
                    start = time.process_time()
                    run()
                    times[label].append(time.process_time() - start)
            unit = statistics.median(times["forward + backward"])
            apart = (answers["ours"] - answers["azula, gmres"]).norm()
            shift = (answers["azula, gmres"] - prior.denoise(x, sigma)).norm()
            row: dict[str, object] = {
                "forward_model": name, "sigma": sigma, "unit_processor_seconds": unit,
                "difference_from_gmres": float(apart / shift),
            }  # fmt: skip
            for label in list(passes)[1:]:
                row[label] = {
                    "ratio": statistics.median(times[label]) / unit,
                    "forward_and_backward_passes": passes[label],
                }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    networks = {"photographs, 128 x 128": priors.load("photographs"), "ADM, 64 x 64": RandomAdm()}
    results: dict[str, object] = {"azula": azula.__version__, "torch": torch.__version__}
    for name, prior in networks.items():
        print(name, flush=True)
        results[name] = measure(prior, args.repeats)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
