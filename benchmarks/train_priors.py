"""Train the bundled priors from the data they name, and write their folders.

    python benchmarks/train_priors.py digits --data FOLDER --work runs/digits

FOLDER holds mnist/mnist.npz, ct/ct_hu_256.npz and natural/kodak18/*.png. The run is checkpointed
in --work and goes on from there when started again. `inverse train` runs the same loop on a
user's own images; this script only fixes the recipes of the shipped weights.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from priors.training import Augmentation, Images, Recipe, train, unet


@dataclass(frozen=True)
class Bundled:
    """One shipped prior: its data, network and recipe."""

    augmentation: Augmentation
    widths: tuple[int, ...]
    layers: int
    patch: int
    attention: bool
    recipe: Recipe
    data_range: tuple[float, float]
    network_range: tuple[float, float]
    any_size: bool


BUNDLED = {
    "digits": Bundled(
        Augmentation(), (32, 64, 96), 2, 1, True,
        Recipe(1400, 64, 1e-3, sigma_data=0.6, sigma_range=(0.005, 40.0), bfloat16=True),
        (0.0, 1.0), (-1.0, 1.0), False,
    ),
    "ct": Bundled(
        Augmentation(crop=128, zoom=(0.5, 2.0), rotate=True), (48, 96, 128), 1, 2, False,
        Recipe(2000, 8, 1e-3, log_sigma=(-1.8, 1.6), sigma_data=0.5, sigma_range=(0.002, 80.0),
               bfloat16=True),
        (-1024.0, 3072.0), (-1.0, 3.0), True,
    ),
    "photographs": Bundled(
        Augmentation(crop=64, zoom=(0.5, 1.0), rotate=True, channels=True, gain=0.5),
        (64, 96, 128), 1, 2, False,
        Recipe(3600, 16, 1e-3, log_sigma=(-1.5, 1.4), sigma_data=0.5, sigma_range=(0.002, 80.0),
               bfloat16=True),
        (0.0, 1.0), (-1.0, 1.0), True,
    ),
}  # fmt: skip

KODAK_HELD_OUT = ("13", "21", "24")


def read(name: str, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Training and development images (C, H, W) in data units."""
    if name == "digits":
        file = np.load(folder / "mnist" / "mnist.npz", allow_pickle=False)
        pair = [torch.from_numpy(file[k]).float()[:, None] / 255 for k in ("x_train", "x_dev")]
        return list(pair[0]), list(pair[1])
    if name == "ct":
        file = np.load(folder / "ct" / "ct_hu_256.npz", allow_pickle=False)
        hu = torch.from_numpy(file["hu"].astype(np.float32))[:, None]
        training = torch.from_numpy(file["split"] == "train")
        return list(hu[training]), list(hu[~training])
    from skimage.io import imread

    pair = ([], [])
    for path in sorted((folder / "natural" / "kodak18").glob("*.png")):
        image = torch.from_numpy(imread(path)).permute(2, 0, 1).float() / 255
        pair[path.stem in KODAK_HELD_OUT].append(image)
    return pair


def to_network(image: Tensor, setup: Bundled) -> Tensor:
    (low, high), (network_low, network_high) = setup.data_range, setup.network_range
    return (image - low) * ((network_high - network_low) / (high - low)) + network_low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=BUNDLED)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run's state")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.error(f"the training data are not at {args.data}")
    torch.set_num_threads(args.threads)
    setup = BUNDLED[args.name]
    training, _ = read(args.name, args.data)
    images = Images([to_network(im, setup) for im in training], setup.augmentation)
    torch.manual_seed(setup.recipe.seed)
    network = unet(
        images.event_shape, setup.widths, setup.layers, setup.patch, setup.attention
    )
    with tqdm(total=setup.recipe.steps, desc=args.name, mininterval=10) as bar:

        def show(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

        train(network, images, setup.recipe, args.work, show, save_every=250)


if __name__ == "__main__":
    main()
