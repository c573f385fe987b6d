"""What the command train does with a classifier's recipe: a run, a folder, its calibration."""

from __future__ import annotations

import dataclasses
import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forward_models import (
    Calibration,
    Classifier,
    calibration_error,
    load_classifier,
    save_classifier,
)
from priors import training
from priors.training.recipe import Data

from .classifier_training import ClassifierRecipe, ClassifierTraining, Labelled
from .io import UnknownArrayError, read_array, write_bytes
from .saved_state import saved
from .training_command import facts
from .training_data import read_data
from .training_watch import Watch

Set = tuple[list[Tensor], Tensor]
Unlabelled = tuple[list[Tensor], Tensor | None]


def train_classifier(args: Namespace) -> None:
    """Train, save, and print accuracy, log-loss and calibration error per noise level."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    recipe: ClassifierRecipe = args.recipe
    group = training.Processes.from_environment()
    device = training.local_device()
    teacher = None if recipe.teacher is None else _teacher(recipe.teacher, device)
    (images, labels), held, span = read_labelled(recipe.data, teacher is None)
    run = ClassifierTraining(recipe, images, labels, span, device, group, teacher)
    if held is not None:
        run.model.check_measurement(held[1])
    state = args.out / ".state"
    if saved(args.out) and group.rank == 0:
        print(f"going on from the state in {state}", flush=True)
    watch = Watch(args.out, run)
    try:
        run.run(state, watch.see)
    finally:
        watch.close()
    if group.rank == 0:
        _finish(args.out, run, held, watch.seconds)
        shutil.rmtree(state, ignore_errors=True)
        print(
            f"the classifier is in {args.out}; "
            f"forward_models.load_classifier({str(args.out)!r}) reads it"
        )
    group.wait()


def _teacher(source: str, device: torch.device) -> Classifier:
    found = load_classifier(source)
    if not isinstance(found, Classifier):
        raise ValueError(f"teacher {source}: is noise-conditional; name a clean one")
    found.network.to(device)
    return found


def read_labelled(
    data: Labelled, labelled: bool = True
) -> tuple[Unlabelled, Set | None, tuple[float, float]]:
    """Images and labels to train on, those to judge by where there are, and the images' range."""
    try:
        return _read(data, labelled)
    except UnknownArrayError as error:
        keys = [f"{key}:" for key, name in dataclasses.asdict(data).items() if name == error.key]
        raise ValueError(f"{error} under data, {' or '.join(keys)} in the recipe") from None


def _read(data: Labelled, labelled: bool) -> tuple[Unlabelled, Set | None, tuple[float, float]]:
    apart = data.held_out_images is not None
    images, held, span = read_data(
        Data(
            data.path, data.images, data.range, None if apart else (),
            held_out_key=data.held_out_images,
        ),
        0,
    )  # fmt: skip
    whole = images, _labels(data.path, data.labels, len(images)) if labelled else None
    if data.held_out_labels is None:
        return whole, None, span
    return whole, (held, _labels(data.path, data.held_out_labels, len(held))), span


def _labels(path: str, key: str, count: int) -> Tensor:
    array = read_array(Path(path), 2**30, key)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: {key} holds {array.dtype} of shape {array.shape}; expected the whole "
            f"numbers of the classes of {count} images, shape ({count},)"
        )
    return torch.from_numpy(array.astype("int64"))


def _finish(out: Path, run: ClassifierTraining, held: Set | None, seconds: float) -> None:
    """Write the folder, and report the calibration of what was written."""
    write_bytes(out / "recipe.yaml", training.recipe_text(run.recipe).encode())
    save_classifier(run.model, out)
    noisy = run.recipe.noisy
    levels = [0.0, *(s * run.unit for s in run.recipe.report.levels)] if noisy else [0.0]
    rows: list[Calibration] = []
    if held is not None:
        x0 = torch.stack(held[0]).to(run.device)
        bins = min(15, len(x0))
        rows = [calibration_error(run.model, x0, held[1], s, bins=bins) for s in levels]
    known: dict[str, Any] = facts(run, seconds, 0 if held is None else len(held[0]))
    known["calibration"] = [dataclasses.asdict(row) for row in rows]
    write_bytes(out / "run.json", (json.dumps(known, indent=2) + "\n").encode())
    if rows:
        print(table(rows))


def table(rows: list[Calibration]) -> str:
    """One line a noise level, of held-out images."""
    head = (
        f"noise level  accuracy  log-loss  calibration error of {rows[0].count} images (by chance)"
    )
    lines = [
        f"{r.sigma:11.4g}{r.accuracy:10.4f}{r.log_loss:10.4f}{r.error:19.4f} "
        f"({r.floor:.4f}, 95 %: {r.ceiling:.4f})"
        for r in rows
    ]
    return "\n".join([head, *lines])
