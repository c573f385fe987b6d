"""Train the bundled priors from the data they name, and write their folders.

    python benchmarks/train_priors.py digits --data FOLDER --work runs/digits

FOLDER holds mnist/mnist.npz, ct/ct_hu_256.npz and natural/kodak18/*.png. The run is checkpointed
in --work and goes on from there when started again. `inverse train` runs the same loop on a
user's own images; this script only fixes the recipes of the shipped weights.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from denoising import PEAK, compare, development, markdown
from torch import Tensor, nn
from tqdm import tqdm

from priors import load, save
from priors.network import SpaceToDepth
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
    about: str
    source: str
    held_out: str
    limits: str
    event_shape: tuple[int, ...] | None = None
    note: str = ""


REPLANNED = """
The number of steps was replanned on the way: the learning rate's cosine was stretched for {}, and
for `steps` after that.
"""

OUT = Path(__file__).parent.parent / "priors" / "bundled"

BUNDLED = {
    "digits": Bundled(
        Augmentation(), (32, 64, 96), 2, 1, True,
        Recipe(2800, 64, 1e-3, sigma_data=0.6, sigma_range=(0.005, 40.0), bfloat16=True),
        (0.0, 1.0), (-1.0, 1.0), False,
        "Handwritten digits, 28 x 28, grey, in [0, 1].",
        "MNIST (CC BY-SA 3.0), 60000 training images.",
        "12 of 5000 development images that the training did not see.",
        "anything but isolated, centred digits.",
        note=REPLANNED.format("2000 steps up to step 750, for 1400 up to step 1000"),
    ),
    "ct": Bundled(
        Augmentation(crop=128, zoom=(0.5, 2.0), rotate=True), (48, 96, 128), 1, 2, False,
        Recipe(2000, 8, 1e-3, log_sigma=(-1.8, 1.6), sigma_data=0.5, sigma_range=(0.002, 80.0),
               bfloat16=True),
        (-1024.0, 3072.0), (-1.0, 3.0), True,
        "CT slices in Hounsfield units, 128 x 128; fully convolutional, so sides may be any "
        "multiples of 8.",
        "204 slices of 256 x 256 from collections of The Cancer Imaging Archive (CC BY), most of "
        "them axial, of about 50 patients; views of 128 x 128 at 0.5 to 2 times their size.",
        "12 of 17 slices of other patients, at half size.",
        "diagnosis of any kind; metal, children, contrast phases and slice planes that 204 "
        "slices do not cover; fine lung texture, which it smooths.",
        note=REPLANNED.format("2400 steps up to step 1000"),
    ),
    "photographs": Bundled(
        Augmentation(crop=64, zoom=(0.5, 1.0), rotate=True, channels=True, gain=0.5),
        (64, 96, 128), 1, 2, False,
        Recipe(3600, 16, 1e-3, log_sigma=(-1.5, 1.4), sigma_data=0.5, sigma_range=(0.002, 80.0),
               bfloat16=True),
        (0.0, 1.0), (-1.0, 1.0), True,
        "Natural photographs, colour, in [0, 1]; fully convolutional: sides may be any multiples "
        "of 8.",
        "15 photographs of the Kodak suite (free of restrictions), views of 64 x 64 at 0.5 to 1 "
        "times their size, turned, mirrored, with channels permuted and contrast scaled.",
        "12 crops of 128 x 128 from three other photographs of the suite (13, 21, 24).",
        "generating photographs (it knows edges and textures, not objects); strongly saturated "
        "colours, which 15 photographs hardly show: on scikit-image's `coffee` non-local means "
        "denoise better by about 1 dB; filling many missing pixels at little noise, where a "
        "biharmonic fill was better.",
        event_shape=(3, 128, 128),
        note=REPLANNED.format("4500 steps up to step 1750"),
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
    network = unet(images.event_shape, setup.widths, setup.layers, setup.patch, setup.attention)
    with tqdm(total=setup.recipe.steps, desc=args.name, mininterval=10) as bar:

        def show(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

        train(network, images, setup.recipe, args.work, show, save_every=250)
    finish(args.name, setup, network, args.data, images.event_shape)


def finish(
    name: str, setup: Bundled, network: nn.Module, data: Path, event_shape: tuple[int, ...]
) -> None:
    """Write the prior's folder, weights in float16, and its card with held-out errors."""
    span = setup.data_range[1] - setup.data_range[0]
    unit = span / (setup.network_range[1] - setup.network_range[0])
    low, high = setup.recipe.sigma_range
    bare = network.network if isinstance(network, SpaceToDepth) else network
    out = OUT / name
    save(
        bare.half(),
        out,
        event_shape=setup.event_shape or event_shape,
        data_range=setup.data_range,
        network_range=setup.network_range,
        sigma_range=(low * unit, high * unit),
        sigma_data=setup.recipe.sigma_data,
        patch=setup.patch,
        any_size=setup.any_size,
        stride=setup.patch * 2 ** (len(setup.widths) - 1) if setup.any_size else 1,
        name=name,
    )
    held_out = development(name, data, 12)
    table = compare(load(out).resized(tuple(held_out.shape[1:])), held_out, PEAK[name])
    parameters = sum(p.numel() for p in bare.parameters())
    recipe = "\n".join(f"- {k}: {v}" for k, v in asdict(setup.recipe).items())
    (out / "README.md").write_text(
        f"# {name}\n\n{setup.about}\n\n"
        f"- Data: {setup.source}\n- Held out: {setup.held_out}\n- Not good for: {setup.limits}\n"
        f"- Data range {setup.data_range}, noise levels {low * unit:g} to {high * unit:g}.\n"
        f"- Network: UNet2DModel, widths {setup.widths}, {setup.layers} block(s) per level, "
        f"{setup.patch} x {setup.patch} pixels folded into channels, {parameters} parameters "
        "in float16.\n\n## Recipe\n\n"
        f"`python benchmarks/train_priors.py {name} --data FOLDER --work FOLDER` on one of two "
        "shared CPU cores. Network units: the data range maps to "
        f"{setup.network_range}.\n\n{recipe}\n{setup.note}\n"
        f"## Held-out denoising error\n\nRMSE and PSNR in dB ({PEAK[name]:g} to peak), 12 images, "
        "beside scikit-image's non-local means told the noise level, at the best of three "
        f"strengths.\n\n{markdown(table)}\n"
    )
    print(markdown(table))


if __name__ == "__main__":
    main()
