"""Train a bundled prior by its recipe, and write its folder and card.

    python benchmarks/train_priors.py digits --data FOLDER --work runs/digits

FOLDER holds mnist/, fashion_mnist/, ct/, mri/ and natural/. The run is that of `inverse train` with
priors/bundled/NAME/recipe.yaml (--recipe for another file there); it is kept in --work and goes on
from there when started again. A run that is complete is only written.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from cards import BUNDLED, CARDS, write

from inverse.cli import main as command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CARDS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    parser.add_argument("--recipe", default="recipe.yaml", help="which file of the prior's folder")
    parser.add_argument("--threads", default="2")
    args = parser.parse_args()
    recipe = BUNDLED / args.name / args.recipe
    if not (args.work / "run.json").exists():
        path = f"data.path={args.data / CARDS[args.name].path}"
        argv = ["train", str(recipe), path, "--out", str(args.work), "--threads", args.threads]
        if status := command(argv):
            raise SystemExit(status)
    publish(args.name, args.work)
    write(args.name, args.data, args.recipe)


def publish(name: str, work: Path) -> None:
    """Copy the run's prior to its place."""
    out = BUNDLED / name
    for part in ("unet", "scheduler"):
        shutil.copytree(work / part, out / part, dirs_exist_ok=True)
    for part in ("prior.json", "model_index.json", "run.json"):
        shutil.copyfile(work / part, out / part)


if __name__ == "__main__":
    main()
