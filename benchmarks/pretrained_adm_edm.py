"""Published ADM and EDM networks at their real sizes: random weights in the published layout,
loaded, and the denoiser beside the paper's formulas in float64.

    PYTHONPATH=.:tests python benchmarks/pretrained_adm_edm.py [NAME ...]

Prints for every configuration its millions of weights, the side of the image, the seconds that
`load` takes, and the relative difference of D - x, which is all that the network adds. Images of up
to 64 x 64 have their published side; those of larger networks, which take any size, have 64, or the
smallest at which every layer has more than one pixel. The largest need 10 GB of memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edm_reference
import test_adm
import torch
from published import record
from safetensors.torch import save_file
from test_edm import complete, noisy
from torch import Tensor

import priors
from priors.pretrained.adm_flags import PUBLISHED as ADM
from priors.pretrained.edm_settings import PUBLISHED as EDM

Denoiser = Callable[[Tensor], Tensor]
LABEL = 7


def side_of(published: int, levels: int) -> int:
    """The side of the images that a network of so many levels is compared on."""
    return min(published, max(64, 2**levels))


@torch.no_grad()
def compare(
    name: str, state: dict[str, Tensor], side: int, label: int | None, sigma: Tensor, D: Denoiser
) -> None:
    x = noisy(sigma, side)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(state, path)
        start = time.perf_counter()
        prior = priors.load(path, settings=name, class_label=label, event_shape=(3, side, side))
        seconds = time.perf_counter() - start
        found = prior.denoise(x.float(), sigma.float()).double()
        del prior
    exact = D(x)
    error = float((found - exact).norm() / (exact - x).norm())
    row = {
        "parameters": sum(value.numel() for value in state.values()),
        "load_seconds": round(seconds, 2),
        "side": side,
        "relative_difference": float(f"{error:.2g}"),
    }
    record("guided-diffusion" if name in ADM else "EDM", name, row)


def adm(name: str) -> None:
    flags = test_adm.defaults(**ADM[name])
    state = test_adm.random_state(flags, classes=1000)
    label = LABEL if flags["class_cond"] else None
    step = torch.tensor([300])
    sigma = test_adm.sigmas(flags)[step]

    def D(x: Tensor) -> Tensor:
        x_t = x / (1 + sigma**2).sqrt()
        return x - sigma * test_adm.reference(state, flags, x_t, step, label)[:, :3]

    side = side_of(flags["image_size"], len(test_adm.ratios(flags)))
    compare(name, state, side, label, sigma, D)


def edm(name: str) -> None:
    settings: dict[str, Any] = complete(name)
    state = edm_reference.random_state(settings)
    label = LABEL if settings["label_dim"] else None
    sigma = torch.tensor([0.5], dtype=torch.float64)
    if settings["class_name"] == "iDDPMPrecond":  # its times are whole
        sigma = torch.tensor(edm_reference.cosine_levels(settings), dtype=torch.float64)[[700]]

    def D(x: Tensor) -> Tensor:
        return edm_reference.denoised(state, settings, x, sigma, label)

    side = side_of(settings["img_resolution"], len(settings["channel_mult"]))
    compare(name, state, side, label, sigma, D)


if __name__ == "__main__":
    for name in sys.argv[1:] or [*ADM, *EDM]:
        (adm if name in ADM else edm)(name)
