"""What the command calibrate does: simulated measurements, a verdict, its figures and plot."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace

import torch
from torch import Tensor

import inverse
from priors import NetworkPrior, Prior

from .commands import chosen_sampler, load_prior, method_options, progress
from .io import write_bytes
from .measurement import forward_model
from .training_data import read_pictures


def calibrate(args: Namespace) -> None:
    """Run the simulations, write calibration.json and calibration.png, print the table."""
    prior = _of_size(args, load_prior(args))
    model = forward_model(args, prior)
    images = None if args.images is None else _images(args, prior)
    sampler = chosen_sampler(args, prior)
    options = method_options(args.option, args.method)
    if sampler is not None:
        options["sampler"] = sampler
    if args.absorb:
        options["absorb"] = True
    state = args.out / ".state"
    with progress("calibrating") as show:
        found = inverse.calibrate(
            prior, model, args.method, n=args.n, draws=args.draws, images=images,
            steps=args.steps if sampler is None else None, seed=args.seed, checkpoint=state,
            callback=show, **options,
        )  # fmt: skip
    report = (json.dumps(found.summary(), indent=2) + "\n").encode()
    write_bytes(args.out / "calibration.json", report)
    found.plot(args.out / "calibration.png")
    shutil.rmtree(state)
    print(found)
    print(f"calibration.json and calibration.png are in {args.out}")


def _of_size(args: Namespace, prior: Prior) -> Prior:
    """The prior, of images of --size."""
    if args.size is None:
        return prior
    shape = (prior.event_shape[0], *args.size)
    if not prior.accepts(shape):
        sides = " x ".join(map(str, prior.event_shape[1:]))
        raise ValueError(
            f"--size {args.size[0]} {args.size[1]}: the prior takes {sides} pixels"
            + (f", or multiples of {prior.stride}" if isinstance(prior, NetworkPrior) else "")
        )
    return prior.resized(shape)


def _images(args: Namespace, prior: Prior) -> Tensor:
    """The --images, (M, C, H, W), in the prior's units and shape."""
    found = read_pictures(args.images)
    shapes = {tuple(image.shape) for image in found.images}
    if shapes != {tuple(prior.event_shape)}:
        shown = ", ".join(map(str, sorted(shapes)[:3]))
        raise ValueError(
            f"{args.images}: holds images {shown}, the prior takes {tuple(prior.event_shape)}; "
            "cut them to that size"
        )
    if len(found.images) < args.n:
        raise ValueError(
            f"{args.images}: holds {len(found.images)} images, -n {args.n} simulations need as "
            "many; choose a smaller -n"
        )
    if found.span is not None and prior.data_range is not None and found.span != prior.data_range:
        low, high = prior.data_range
        raise ValueError(
            f"{args.images}: spans {found.span}, the prior's images [{low:g}, {high:g}]; say "
            "--data-range if they are the same images, or pass an .npy in those units"
        )
    return torch.stack(found.images).to(getattr(prior, "dtype", torch.float32))
