"""Train a bundled prior by its recipe, and write its folder and card.

    python benchmarks/train_priors.py digits --data FOLDER --work runs/digits

FOLDER holds mnist/, fashion_mnist/, ct/, mri/ and natural/. The run is that of `inverse train` with
priors/bundled/NAME/recipe.yaml (--recipe for another file there); it is kept in --work and goes on
from there when started again. A run that is complete is only written.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from denoising import PEAK, compare, development, markdown
from torch import Tensor

from inverse.cli import main as command
from inverse.training_data import read_data
from priors import NetworkPrior, load
from priors.training import Recipe, read_recipe

OUT = Path(__file__).parent.parent / "priors" / "bundled"


@dataclass(frozen=True)
class Card:
    """What a card says that the run does not know."""

    path: str
    about: str
    source: str
    held_out: str
    limits: str


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
        "T1-weighted brain slices, 128 x 128, in [0, 1].",
        "1472 slices (MIT, CC BY 4.0 by their publishers' pages; no licence file seen).",
        "12 of 100 other slices; slices of one patient may lie in both sets.",
        "diagnosis of any kind; other contrasts, planes and pathologies.",
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
    ),
    "photographs": Card(
        "natural/kodak18",
        "Natural photographs, colour, in [0, 1]; fully convolutional: sides may be any multiples "
        "of 8.",
        "15 photographs of the Kodak suite (free of restrictions), views of 64 x 64 at 0.5 to 1 "
        "times their size, turned, mirrored, with channels permuted and contrast scaled.",
        "12 crops of 128 x 128 from three other photographs of the suite (13, 21, 24).",
        "generating photographs (it knows edges and textures, not objects); filling many missing "
        "pixels at little noise, where a biharmonic fill was better.",
    ),
}


def read(name: str, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Training and development images (C, H, W) in data units."""
    recipe = read_recipe(OUT / name / "recipe.yaml")
    training, held, _ = read_data(
        replace(recipe.data, path=str(folder / CARDS[name].path)), recipe.seed
    )
    return training, held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CARDS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    parser.add_argument("--recipe", default="recipe.yaml", help="which file of the prior's folder")
    parser.add_argument("--threads", default="2")
    args = parser.parse_args()
    recipe = OUT / args.name / args.recipe
    if not (args.work / "run.json").exists():
        path = f"data.path={args.data / CARDS[args.name].path}"
        argv = ["train", str(recipe), path, "--out", str(args.work), "--threads", args.threads]
        if status := command(argv):
            raise SystemExit(status)
    publish(args.name, read_recipe(recipe), recipe.name, args.work, args.data)


def publish(name: str, recipe: Recipe, file: str, work: Path, data: Path) -> None:
    """Copy the run's prior to its place, and write its card with held-out errors."""
    out = OUT / name
    for part in ("unet", "scheduler"):
        shutil.copytree(work / part, out / part, dirs_exist_ok=True)
    for part in ("prior.json", "model_index.json", "run.json"):
        shutil.copyfile(work / part, out / part)
    prior: NetworkPrior = load(out)
    held_out = development(name, data, 12)
    table = compare(prior.resized(tuple(held_out.shape[1:])), held_out, PEAK[name])
    run, card = json.loads((out / "run.json").read_text()), CARDS[name]
    low, high = prior.sigma_range
    errors = "\n".join(
        f"| {row['sigma']:.4g} | {row['training']:.4g} | {row['held-out']:.4g} |"
        for row in run["errors"]
    )
    (out / "README.md").write_text(
        f"# {name}\n\n{card.about}\n\n"
        f"- Data: {card.source}\n- Held out: {card.held_out}\n- Not good for: {card.limits}\n"
        f"- Data range {prior.data_range}, noise levels {low:g} to {high:g}.\n"
        f"- Network: UNet2DModel, widths {recipe.network.widths}, {recipe.network.layers} block(s) "
        f"per level, {recipe.network.patch} x {recipe.network.patch} pixels folded into channels, "
        f"{run['parameters']} parameters in {recipe.output.dtype}.\n"
        f"- Training: `inverse train {file} data.path=FOLDER/{card.path}` (the file is beside "
        f"this one), seed {run['seed']}, {run['steps']} steps in {run['seconds'] / 3600:.1f} h on "
        f"{run['threads']} thread(s) of {run['hardware']}, torch {run['versions']['torch']}.\n\n"
        "## Denoising error on training and held-out images\n\nRoot mean square, data units.\n\n"
        f"| sigma | training | held-out |\n|---|---|---|\n{errors}\n\n"
        f"## Beside a classical filter\n\nRMSE and PSNR in dB ({PEAK[name]:g} to peak), 12 "
        "held-out images, beside scikit-image's non-local means told the noise level, at the best "
        f"of three strengths.\n\n{markdown(table)}\n"
    )
    print(markdown(table))


if __name__ == "__main__":
    main()
