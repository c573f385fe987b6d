"""What the command train does: a recipe or a few options, a run shown as it goes, a prior."""

from __future__ import annotations

import json
import math
import platform
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import priors
from priors import training
from priors.training import recipe as parts
from priors.training.recipe_file import read

from .classifier_training import ClassifierRecipe
from .io import write_bytes
from .saved_state import saved
from .training_data import read_data
from .training_watch import Watch, errors


def settle(args: Namespace) -> None:
    """Put the recipe into args, from its file or from the short form's options."""
    if args.recipe is not None:
        options = [f"--{o.replace('_', '-')}" for o in SHORT if getattr(args, o) is not None]
        if options:
            raise ValueError(
                f"{', '.join(options)}: options of the short form do not go with a recipe; write "
                "section.key=value after its name"
            )
        args.recipe = read(Path(args.recipe), args.changes, _kind)
        classifier = isinstance(args.recipe, ClassifierRecipe)
        if classifier:
            args.writes = ("config.json",)
        args.out = args.out or Path(args.recipe.name or ("classifier" if classifier else "prior"))
    else:
        if args.data is None or args.out is None:
            raise ValueError("train needs a recipe, or --data and --out; see inverse train --help")
        args.recipe = _short(args)
    args.seed = args.recipe.seed


def _kind(values: dict[str, Any]) -> type[training.Recipe | ClassifierRecipe]:
    return ClassifierRecipe if values.get("kind") == "classifier" else training.Recipe


SHORT = ("data", "key", "crop", "data_range", "steps", "batch", "lr", "seed", "layers", "patch",
         "widths", "rotate", "flip", "zoom")  # fmt: skip
"""Options that make up a recipe of their own."""


def _short(args: Namespace) -> training.Recipe:
    given = {o: getattr(args, o) for o in SHORT if getattr(args, o) is not None}

    def pick(**names: str) -> dict[str, Any]:
        """Settings by their names in the recipe, from options that were given."""
        chosen = {k: given[o] for k, o in names.items() if o in given}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}

    return training.Recipe(
        parts.Data(str(args.data), **pick(key="key", range="data_range")),
        given.get("steps", 2000),
        **pick(batch="batch", seed="seed"),
        network=parts.Network(**pick(widths="widths", layers="layers", patch="patch")),
        optimizer=training.Optimizer(**pick(learning_rate="lr")),
        augmentation=training.Augmentation(
            **pick(crop="crop", zoom="zoom", flip="flip", rotate="rotate")
        ),
    )


def train_prior(args: Namespace) -> None:
    """Train, save, and print the errors on held-out images and on training images."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    recipe: training.Recipe = args.recipe
    group = training.Processes.from_environment()
    images, held, span = read_data(recipe.data, recipe.seed)
    run = training.PriorTraining(recipe, images, span, training.local_device(), group)
    state = args.out / ".state"
    if saved(args.out) and group.rank == 0:
        print(f"going on from the state in {state}", flush=True)
    watch = Watch(args.out, run, held)
    try:
        run.run(state, watch.see)
    finally:
        watch.close()
    if group.rank == 0:
        _finish(args.out, run, images, held, watch.seconds)
        shutil.rmtree(state, ignore_errors=True)
        print(f"the prior is in {args.out}; use it with --prior {args.out}")
    group.wait()


def _finish(
    out: Path, run: training.PriorTraining, images: list[Tensor], held: list[Tensor], seconds: float
) -> None:
    """Write the folder, and report the errors of what was written."""
    write_bytes(out / "recipe.yaml", training.recipe_text(run.recipe).encode())
    run.save(out)
    prior = priors.load(out)
    levels = [s * run.unit for s in run.recipe.output.errors]
    count = run.recipe.output.judged
    table = {"training": errors(prior, images, levels, count)}
    if held:
        table["held-out"] = errors(prior, held, levels, count)
    known = facts(run, seconds, len(held)) | {"sigma_data": run.sigma_data}
    known["errors"] = [
        {"sigma": s, **{name: e[i] for name, e in table.items()}} for i, s in enumerate(levels)
    ]
    write_bytes(out / "run.json", (json.dumps(known, indent=2) + "\n").encode())
    counts = {"training": len(images), "held-out": len(held)}
    shown = [f"{min(counts[n], run.recipe.output.judged)} {n} images" for n in table]
    print("root mean square error of the denoised image")
    print("noise level" + "".join(f"{name:>26}" for name in shown))
    for i, sigma in enumerate(levels):
        print(f"{sigma:11.4g}" + "".join(f"{e[i]:26.4g}" for e in table.values()))
    if not all(math.isfinite(e) for values in table.values() for e in values):
        raise FloatingPointError("the trained prior's errors are not finite; lower the rate")


def facts(run: Any, seconds: float, held: int) -> dict[str, Any]:
    """What a PriorTraining or ClassifierTraining ran on, how long, and with which versions."""
    from importlib.metadata import version

    cuda = run.device.type == "cuda"
    return {
        "seed": run.recipe.seed,
        "steps": run.recipe.steps,
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "images": {
            "training": len(run.images), "held_out": held, "training_sha256": run.digest(),
        },
        "processes": run.processes.size,
        "threads": torch.get_num_threads(),
        "hardware": torch.cuda.get_device_name() if cuda else _processor(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "numpy")},
        },
    }  # fmt: skip


def _processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
