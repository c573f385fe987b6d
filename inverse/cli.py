"""The command line: demo, sample, reconstruct, calibrate, train, methods.

Parsing needs nothing but the standard library; what the commands do is imported when one runs.
"""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

BAD_INPUT, DIVERGED, DISK_FULL, INTERRUPTED = 2, 1, 74, 130

EPILOG = """\
exit status: 0 done, 1 the run diverged, 2 a bad input (one line on stderr says which and what to
do), 74 the disk is full, 130 interrupted. Nothing is fetched from the network, unless --prior is
a hub id (org/name) that the local cache lacks; nothing in a file is executed."""

VERDICT = """\
The exit status is 0 whatever the verdict; calibration.json holds it. Truths are --images, else
exact draws where the prior has them, else draws by its own sampler, whose faults show as well."""

HOUNSFIELD = """\
A prior is in Hounsfield units if its data range starts at -1000 or below. Such a prior takes DICOM
slices, and with --forward ct its sinogram and --sigma are line integrals of attenuation, without
unit; with any other prior they are in its unit times mm."""

RECIPES = """\
A recipe trains a prior, or with "kind: classifier" in it a classifier of labelled images, whose
keys are those of inverse.classifier_training.ClassifierRecipe (data: {path, images, labels, ...});
those of a prior are in priors.training.Recipe."""

SAMPLERS = (
    "multistep", "multistep-ode", "multistep-3", "heun", "stochastic-heun", "ancestral", "ddim",
    "spherical", "euler-maruyama", "euler-maruyama-vp", "predictor-corrector", "time-travel",
    "annealed-langevin", "langevin", "mala", "adaptive-ode",
)  # fmt: skip
GRIDS = ("geometric", "karras", "uniform-alpha", "vp", "sub-vp", "cosine", "flow")
ASKS = ("closed form", "every noise level", "SVD", "adjoint", "gradient", "black box")
CALIBRATION = ("calibration.json", "calibration.png")
SAVED = ("samples.npy", "mean.npy", "std.npy", "diagnostics.json", "panel.png")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, see EPILOG."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    try:
        _run(args)
        return 0
    except KeyboardInterrupt:
        print(f"interrupted{_going_on(args)}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if args.debug:
            raise
        full = _disk_full(error)
        text = " ".join(str(error).split()) or type(error).__name__
        if full:
            text = f"{args.out}: no space left on its disk; free some, or choose another --out"
        print(f"error: {text}", file=sys.stderr)
        if full:
            return DISK_FULL
        return DIVERGED if isinstance(error, FloatingPointError) else BAD_INPUT


def _going_on(args: argparse.Namespace) -> str:
    """What the same command would do after an interrupt."""
    if args.command not in ("train", "calibrate"):
        return ""
    from .saved_state import saved

    if args.out is not None and saved(args.out):
        return "; the same command goes on"
    return "; nothing was saved yet, the same command starts again"


def _run(args: argparse.Namespace) -> None:
    from . import calibrate_command, classifier_command, commands, training_command
    from .classifier_training import ClassifierRecipe

    if args.command == "train":
        training_command.settle(args)
    if args.command != "methods":
        _check(args)
    run = {
        "demo": commands.run_demo,
        "sample": commands.draw_from_prior,
        "reconstruct": commands.reconstruct,
        "calibrate": calibrate_command.calibrate,
        "train": training_command.train_prior,
        "methods": commands.list_methods,
    }
    if isinstance(getattr(args, "recipe", None), ClassifierRecipe):
        classifier_command.train_classifier(args)
    else:
        run[args.command](args)


def _check(args: argparse.Namespace) -> None:
    """Refuse bad settings and an occupied folder before anything is computed."""
    from .recipes import find

    if getattr(args, "method", None) not in (None, "auto"):
        find(args.method)
    for option in ("n", "draws", "steps", "batch"):
        value = getattr(args, option, None)
        if value is not None and value < 1:
            name = f"-{option}" if len(option) == 1 else f"--{option}"
            raise ValueError(f"{name} {value}: must be at least 1; choose a larger one")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed {args.seed}: must lie in [0, 2^63); choose another")
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; name a folder for --out")
    there = [name for name in args.writes if (out / name).exists()]
    if there and not args.force:
        raise ValueError(f"{out}: holds {', '.join(there)} already; add --force to replace")


def _disk_full(error: BaseException | None) -> bool:
    """Also where a library reports a full disk in words alone."""
    words = re.compile(r"No space left|os error 28|\d+ requested and \d+ written")
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if words.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(
        prog="inverse", epilog=EPILOG, allow_abbrev=False,
        description="Posterior samples from a pretrained diffusion prior and a measurement.",
    )  # fmt: skip
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND",
                                  dest="command")  # fmt: skip

    def add(
        name: str, help: str, writes: tuple[str, ...] = (), epilog: str | None = None
    ) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = commands.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog,
            allow_abbrev=False,
        )  # fmt: skip
        one.set_defaults(out=None, writes=writes)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return one

    one = add("demo", "four small reconstructions with the bundled priors, in minutes")
    one.add_argument("--out", type=Path, default=Path("inverse-demo"), metavar="FOLDER",
                     help="rewritten on each run (inverse-demo)")  # fmt: skip
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--class", dest="digit", type=int, default=7, choices=range(10), metavar="K",
                     help="the digit to draw (7)")  # fmt: skip

    one = add("sample", "draw images from a prior, or of one of its classes", SAVED)
    _add_sampling(one)
    one.add_argument("--class", dest="label", type=int, metavar="K", help="draw this class only")
    one.add_argument("--classifier", metavar="NAME|FOLDER", help="for --class: noise-"
                     "conditional; by default the prior's own")  # fmt: skip

    one = add("reconstruct", "draw the images that a measurement allows",
              (*SAVED, "metrics.json"), HOUNSFIELD)  # fmt: skip
    _add_measurement(one)
    _add_sampling(one)

    one = add("calibrate", "whether a method's samples follow the posterior, on simulated "
              "measurements", CALIBRATION, VERDICT)  # fmt: skip
    _add_forward(one)
    one.add_argument("--images", type=Path, metavar="FILE|FOLDER", help="truths in place of the "
                     "prior's draws: .npy of (N, H, W) or (N, C, H, W), or a folder")  # fmt: skip
    _add_sampling(one, 200, "simulated measurements (200)")
    one.add_argument("--draws", type=int, default=49, help="of the posterior for each (49)")

    _add_training(add("train", "train a prior on your own images, or a classifier",
                      ("model_index.json",), RECIPES))  # fmt: skip

    one = add("methods", "the posterior samplers: need, cost, and measured calibration")
    one.add_argument("names", nargs="*", metavar="NAME", help="of these alone")
    one.add_argument("--asks", choices=ASKS, metavar="WHAT", help="that ask of the forward model "
                     f"for just this: {', '.join(ASKS)}")  # fmt: skip
    one.add_argument("--no-jacobian", action="store_true", help="that never differentiate through "
                     "the network")  # fmt: skip
    return top


def _add_sampling(
    one: argparse.ArgumentParser, n: int = 8, of: str = "number of samples, or particles (8)"
) -> None:
    one.add_argument("--prior", required=True, metavar="NAME|FOLDER", help="bundled, or a folder")
    one.add_argument("--data-range", type=float, nargs=2, metavar=("LO", "HI"), help="what the "
                     "prior's images span, where its folder does not say")  # fmt: skip
    one.add_argument("--method", help="see `inverse methods`; auto: nearest to the posterior")
    one.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the "
                     "method, as `inverse methods` lists them; may be repeated")  # fmt: skip
    one.add_argument("--absorb", action="store_true", help="no guidance where the noise of the "
                     "state explains that of the measurement")  # fmt: skip
    one.add_argument("--sampler", choices=SAMPLERS, metavar="NAME", help="in place of a method's "
                     f"own: {', '.join(SAMPLERS)}; --steps noise levels (100), without effect on "
                     "adaptive-ode; langevin and mala take as many at the smallest")  # fmt: skip
    one.add_argument("--levels", choices=GRIDS, metavar="NAME", help="of the --sampler: "
                     f"{', '.join(GRIDS)} (geometric)")  # fmt: skip
    one.add_argument("-n", type=int, default=n, help=of)
    one.add_argument("--steps", type=int, help="noise levels; by default the method's")
    one.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (0)")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    one.add_argument("--force", action="store_true", help="replace files that are there")


def _add_measurement(one: argparse.ArgumentParser) -> None:
    one.add_argument("input", type=Path, metavar="INPUT", help="the measurement: a picture or "
                     ".npy, for ct a sinogram .npy (angles, detectors). With --simulate a clean "
                     "image; DICOM slices are images and need it")  # fmt: skip
    one.add_argument("--simulate", action="store_true", help="INPUT is a clean image: measure it "
                     "first, and report how near the answer comes")  # fmt: skip
    one.add_argument("--crop", action="store_true", help="cut the middle out where the size does "
                     "not fit the prior")  # fmt: skip
    _add_forward(one)


def _add_forward(one: argparse.ArgumentParser) -> None:
    one.add_argument("--forward", required=True, choices=("blur", "inpaint", "downsample", "ct"))
    one.add_argument("--sigma", type=float, required=True, metavar="NOISE", help="standard "
                     "deviation of the noise, in the unit of the measurement")  # fmt: skip
    group = one.add_argument_group("forward models")
    group.add_argument("--blur-sigma", type=float, metavar="PIXELS", help="blur: Gaussian kernel")
    group.add_argument("--kernel", type=Path, metavar="FILE", help="blur: kernel, .npy as it is or "
                       "a picture brought to sum 1")  # fmt: skip
    group.add_argument("--padding", default="reflect", help="blur: beyond the border (reflect)",
                       choices=("reflect", "circular", "replicate", "constant"))  # fmt: skip
    group.add_argument("--mask", type=Path, metavar="FILE", help="inpaint: 0 where pixels are "
                       "missing, largest value where they are seen")  # fmt: skip
    group.add_argument("--keep", type=float, metavar="FRACTION", help="inpaint with --simulate or "
                       "calibrate: random pixels seen")  # fmt: skip
    group.add_argument("--factor", type=int, metavar="F", help="downsample: F x F averages")
    group.add_argument("--angles", type=int, metavar="N", help="ct: N even steps over 180 degrees")
    group.add_argument("--angles-file", type=Path, metavar="FILE", help="ct: degrees, .npy or text")
    group.add_argument("--spacing", type=float, metavar="MM", help="ct: pixel and detector spacing "
                       "(the DICOM file's, else 1)")  # fmt: skip
    group.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the image behind "
                       "a sinogram, or of all of calibrate; by default the prior's")  # fmt: skip
    group.add_argument("--mu-water", type=float, default=0.0193, metavar="MU", help="ct in HU: "
                       "attenuation of water in 1/mm; default 0.0193, as at 70 keV")  # fmt: skip


def _add_training(one: argparse.ArgumentParser) -> None:
    one.add_argument("recipe", nargs="?", metavar="RECIPE", help="a YAML file, of a prior or of a "
                     "classifier (kind: classifier)")  # fmt: skip
    one.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="changes of the recipe, such "
                     "as data.path=images steps=4000")  # fmt: skip
    one.add_argument("--out", type=Path, metavar="FOLDER", help="where the prior or "
                     "classifier goes, by default the recipe's name; an interrupted run goes on "
                     "from its .state")  # fmt: skip
    one.add_argument("--force", action="store_true", help="replace what is there")
    one.add_argument("--threads", type=int, metavar="N", help="of the CPU; by default as many as "
                     "torch takes")  # fmt: skip
    group = one.add_argument_group("in place of a recipe")
    group.add_argument("--data", type=Path, metavar="FILE|FOLDER", help=".npy or .npz of (N, H, W) "
                       "or (N, C, H, W), or a folder of images")  # fmt: skip
    group.add_argument("--key", help="which array of an .npz, e.g. x_train")
    group.add_argument("--crop", "--image-size", type=int, metavar="PIXELS", help="train on random "
                       "squares of this side; by default on whole images")  # fmt: skip
    group.add_argument("--data-range", type=float, nargs=2, metavar=("LO", "HI"), help="what the "
                       "values span; needed for floats (0 1; CT -1024 3072)")  # fmt: skip
    for name, kind, help in (
        ("--steps", int, "optimiser steps (2000)"),
        ("--batch", int, "images a step (32)"),
        ("--lr", float, "learning rate at its highest (0.001)"),
        ("--seed", int, "the same seed gives the same weights (0)"),
        ("--layers", int, "residual blocks at each resolution (1)"),
        ("--patch", int, "side of the blocks of pixels folded into channels (1)"),
    ):
        group.add_argument(name, type=kind, help=help)
    group.add_argument("--widths", type=int, nargs="+", help="channels at each resolution, "
                       "multiples of 16 (32 64 128)")  # fmt: skip
    group.add_argument("--rotate", action="store_const", const=True, help="also turned by 90 "
                       "degrees and mirrored")  # fmt: skip
    group.add_argument("--flip", action="store_const", const=True, help="also mirrored left-right")
    group.add_argument("--zoom", type=float, nargs=2, metavar=("LO", "HI"), help="enlarged by "
                       "random factors between these two (1 1)")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
