"""Write the cards of the bundled network priors: held-out errors, log-likelihood, samples.

    python benchmarks/cards.py --data FOLDER [--prior digits ...]

FOLDER: see train_priors.py, which calls this after a run. A card is made of what the prior's folder
says (recipe.yaml, prior.json and run.json) and of what is measured here.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from denoising import PEAK, compare, development, markdown
from torch import Tensor

import inverse
from inverse.training_data import read_data
from priors import NetworkPrior, bits_per_dim, load, log_prob
from priors.training import Recipe, read_recipe

BUNDLED = Path(__file__).parent.parent / "priors" / "bundled"
PROBES = 4
DENSITY_SEED = 1
LN2 = math.log(2)


@dataclass(frozen=True)
class Card:
    """What a card says that the run does not know.

    The data were stored in `cells` steps over the data range: the density is that of x + u, u
    uniform over one step about 0. `judged` images give the log-likelihood, `drawn` the picture.
    """

    path: str
    about: str
    source: str
    held_out: str
    limits: str
    cells: int = 255
    judged: int = 16
    drawn: int = 64
    steps: int = 100
    side: int | None = None
    note: str = ""


CARDS = {
    "digits": Card(
        "mnist/mnist.npz",
        "Handwritten digits, 28 x 28, grey, in [0, 1].",
        "MNIST (CC BY-SA 3.0), 60000 training images.",
        "12 of 5000 development images that the training did not see.",
        "anything but isolated, centred digits.",
    ),
    "fashion": Card(
        "fashion_mnist/fashion_mnist.npz",
        "Clothes, shoes and bags, 28 x 28, grey, in [0, 1].",
        "Fashion-MNIST (MIT, Zalando), 20000 training images, 2000 of each kind.",
        "12 of 2500 development images that the training did not see.",
        "anything but single pieces on a black ground; fine texture.",
    ),
    "brain": Card(
        "mri/brain128.npz",
        "Brain slices as T1-weighted MRI with contrast agent shows them, magnitudes, 128 x 128, in "
        "[0, 1].",
        "1472 slices (MIT, CC BY 4.0 by their publishers' pages; no licence file seen).",
        "12 of 100 other slices; slices of one patient may lie in both sets, which flatters the "
        "figures below.",
        "diagnosis of any kind; other contrasts and pathologies; complex images, of which it knows "
        "the magnitude only.",
        judged=4, drawn=16, steps=50,
        note="The run was that of the recipe's settings by an earlier version of the loop, with "
        "the same loss; its random numbers, and so its very weights, are not those of "
        "`inverse train`.",
    ),
    "ct": Card(
        "ct/ct_hu_256.npz",
        "CT slices in Hounsfield units, 128 x 128; fully convolutional, so sides may be any "
        "multiples of 8.",
        "204 slices of 256 x 256 from collections of The Cancer Imaging Archive (CC BY), most of "
        "them axial, of about 50 patients; views of 128 x 128 at 0.5 to 2 times their size.",
        "12 of 17 slices of other patients, at half size.",
        "diagnosis of any kind; metal, children, contrast phases and slice planes that 204 "
        "slices do not cover; fine lung texture, which it smooths.",
        cells=4096, judged=4, drawn=16, steps=50,
        note="The run was by an earlier version of the loop, with the same loss, and its number of "
        "steps was replanned on the way: the learning rate's cosine was stretched for 2400 steps "
        "up to step 1000, for 2000 after that.",
    ),
    "photographs": Card(
        "natural/kodak18",
        "Natural photographs, colour, in [0, 1]; fully convolutional: sides may be any multiples "
        "of 8.",
        "15 photographs of the Kodak suite (free of restrictions), views of 64 x 64 at 0.5 to 1 "
        "times their size, turned, mirrored, with channels permuted and contrast scaled.",
        "12 crops of 128 x 128 from three other photographs of the suite (13, 21, 24).",
        "generating photographs (it knows edges and textures, not objects); strongly saturated "
        "colours, which 15 photographs hardly show: on scikit-image's `coffee` non-local means "
        "denoise better by about 1 dB; filling many missing pixels at little noise, where a "
        "biharmonic fill was better.",
        judged=4, drawn=16, steps=50, side=64,
        note="The run was by an earlier version of the loop, with the same loss, and its number of "
        "steps was replanned on the way: the learning rate's cosine was stretched for 4500 steps "
        "up to step 1750, for 3600 after that.",
    ),
}  # fmt: skip


def read(name: str, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Training and development images (C, H, W) in data units."""
    recipe = read_recipe(BUNDLED / name / "recipe.yaml")
    path = str(folder / CARDS[name].path)
    training, held, _ = read_data(replace(recipe.data, path=path), recipe.seed)
    return training, held


def likelihood(prior: NetworkPrior, images: Tensor, cells: int) -> tuple[float, float, float]:
    """Bits per value: their mean, its standard error over images, and that of the trace alone."""
    low, high = prior.data_range
    generator = torch.Generator().manual_seed(DENSITY_SEED)
    x = images + (high - low) / cells * (torch.rand(images.shape, generator=generator) - 0.5)
    log_p, error = log_prob(prior, x, probes=PROBES, tolerance=1e-3, return_error=True)
    bits = bits_per_dim(log_p, prior, levels=cells)
    trace = float(error.square().mean().sqrt()) / len(error) ** 0.5
    return float(bits.mean()), float(bits.std()) / len(bits) ** 0.5, trace / (x[0].numel() * LN2)


def picture(name: str, prior: NetworkPrior, path: Path) -> None:
    """A grid of unconditional samples, cut to the range shown."""
    from skimage.io import imsave

    card = CARDS[name]
    if card.side is not None:
        prior = prior.resized((prior.event_shape[0], card.side, card.side))
    x = inverse.sample(prior, n=card.drawn, steps=card.steps, seed=0).x
    shown = ((x - prior.data_range[0]) / PEAK[name]).clamp(0, 1)
    columns = round(card.drawn**0.5)
    image = torch.cat([torch.cat(list(row), -1) for row in shown.split(columns)], -2)
    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    imsave(path, pixels[..., 0] if pixels.shape[-1] == 1 else pixels, check_contrast=False)


def write(name: str, data: Path, file: str = "recipe.yaml") -> None:
    """Measure a bundled prior and write its README.md and samples.png."""
    out, card = BUNDLED / name, CARDS[name]
    prior = load(out)
    held_out = development(name, data, max(12, card.judged))
    table = compare(prior.resized(tuple(held_out.shape[1:])), held_out[:12], PEAK[name])
    judged = held_out[: card.judged]
    sized = prior.resized(tuple(judged.shape[1:]))
    bits, spread, trace = likelihood(sized, judged, card.cells)
    picture(name, prior, out / "samples.png")
    recipe = read_recipe(out / file)
    run_at = out / "run.json"
    again_at = out / "again.json"  # a second run of the recipe, seed apart
    run, again = (json.loads(at.read_text()) if at.exists() else None for at in (run_at, again_at))
    text = "\n".join(
        [
            f"# {name}\n\n{card.about}\n",
            f"- Data: {card.source}\n- Held out: {card.held_out}\n- Not good for: {card.limits}",
            *facts(prior, recipe, run, card, file),
            "",
            *errors(run),
            *reproduction(run, again),
            "## Beside a classical filter\n",
            f"RMSE and PSNR in dB ({PEAK[name]:g} to peak), 12 held-out images, beside "
            "scikit-image's non-local means told the noise level, at the best of three "
            f"strengths.\n\n{markdown(table)}\n",
            "## Log-likelihood\n",
            f"{bits:.2f} bits per value on {card.judged} held-out images of "
            f"{' x '.join(map(str, judged.shape[1:]))} (standard error {spread:.2f} over images, "
            f"{trace:.2g} from the estimated trace), each value spread evenly over its cell of "
            f"1/{card.cells} of the range; the density is that at sigma = "
            f"{prior.sigma_range[0]:g}.\n",
            "## Samples\n",
            f"{card.drawn} unconditional draws, {card.steps} steps, seed 0, cut to the range "
            "shown.\n\n![draws](samples.png)\n",
        ]
    )
    (out / "README.md").write_text(text)
    print(text)


def facts(
    prior: NetworkPrior, recipe: Recipe, run: dict | None, card: Card, file: str
) -> list[str]:
    """Lines on range, network and training."""
    low, high = prior.sigma_range
    plan = recipe.network
    parameters = sum(p.numel() for p in prior.network.parameters())
    lines = [
        f"- Data range {prior.data_range}, noise levels {low:g} to {high:g}.",
        f"- Network: UNet2DModel, widths {plan.widths}, {plan.layers} block(s) per level, "
        f"{plan.patch} x {plan.patch} pixels folded into channels, {parameters} parameters in "
        f"{recipe.output.dtype}.",
    ]
    command = f"`inverse train {file} data.path=FOLDER/{card.path}` (the file is beside this one)"
    if run is None:
        lines.append(
            f"- Training: the settings of {command}, seed {recipe.seed}, {recipe.steps} steps, on "
            "one of two shared CPU cores within an hour and a half."
        )
    else:
        lines.append(
            f"- Training: {command}, seed {run['seed']}, {run['steps']} steps in "
            f"{run['seconds'] / 3600:.1f} h on {run['threads']} thread(s) of {run['hardware']}, "
            f"shared with other work, torch {run['versions']['torch']}."
        )
    return [*lines, f"- {card.note}"] if card.note else lines


def errors(run: dict | None) -> list[str]:
    """The run's own table, where there is one."""
    if run is None or not run["errors"]:
        return []
    rows = [
        f"| {row['sigma']:.4g} | {row['training']:.4g} | {row['held-out']:.4g} |"
        for row in run["errors"]
    ]
    return [
        "## Denoising error on training and held-out images\n\nRoot mean square, data units.\n",
        "| sigma | training | held-out |\n|---|---|---|",
        *rows,
        "",
    ]


def reproduction(run: dict | None, again: dict | None) -> list[str]:
    """How far a second run of the recipe, with another seed, comes out from the first."""
    if run is None or again is None:
        return []
    pairs = list(zip(run["errors"], again["errors"], strict=True))
    furthest = max(abs(b["held-out"] / a["held-out"] - 1) for a, b in pairs)
    rows = ", ".join(f"{b['held-out']:.4g}" for _, b in pairs)
    return [
        f"The recipe run again with seed {again['seed']} ({again['seconds'] / 3600:.1f} h): "
        f"held-out {rows} at the same levels, within {math.ceil(1000 * furthest) / 10:g} % of "
        "the above.\n"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--prior", nargs="*", default=list(CARDS), help="bundled names")
    args = parser.parse_args()
    for name in args.prior:
        write(name, args.data)


if __name__ == "__main__":
    main()
