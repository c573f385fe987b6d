"""The command line: demo, sample, reconstruct, train, methods.

Parsing needs nothing but the standard library; each command imports what it uses when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

    from forward_models import LinearGaussian
    from priors import NetworkPrior

    from .io import Image
    from .result import Samples
    from .samplers import Step

BAD_INPUT, DIVERGED, DISK_FULL, INTERRUPTED = 2, 1, 74, 130

EPILOG = """\
exit status: 0 done, 1 the run diverged, 2 a bad input (one line on stderr says which and what to
do), 74 the disk is full, 130 interrupted. Nothing is fetched from the network, and nothing in a
file is executed."""

CT_WINDOW = (-700.0, 500.0)


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
        args.command(args)
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
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
        prog="inverse",
        description="Posterior samples from a pretrained diffusion prior and a measurement.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], help: str) -> Any:
        one = commands.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".", allow_abbrev=False
        )
        one.set_defaults(command=run, out=None)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return one

    one = add("demo", _demo, "four small reconstructions with the bundled priors, in minutes")
    one.add_argument("--out", type=Path, default=Path("inverse-demo"), metavar="FOLDER",
                     help="rewritten on each run (inverse-demo)")  # fmt: skip
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--class", dest="digit", type=int, default=7, choices=range(10), metavar="K",
                     help="the digit to draw (7)")  # fmt: skip

    one = add("sample", _sample, "draw images from a prior, or of one of its classes")
    _add_sampling(one)
    one.add_argument("--class", dest="label", type=int, metavar="K", help="draw this class only")
    one.add_argument("--classifier", metavar="NAME|FOLDER", help="for --class: noise-"
                     "conditional; by default the prior's own")  # fmt: skip

    one = add("reconstruct", _reconstruct, "draw the images that a measurement allows")
    one.add_argument("input", type=Path, metavar="INPUT", help="the measurement: a picture or "
                     ".npy, for ct a sinogram .npy (angles, detectors). With --simulate a clean "
                     "image; DICOM slices are images and need it")  # fmt: skip
    one.add_argument("--forward", required=True, choices=("blur", "inpaint", "downsample", "ct"))
    one.add_argument("--sigma", type=float, required=True, metavar="NOISE", help="standard "
                     "deviation of the noise, in the unit of the data")  # fmt: skip
    one.add_argument("--simulate", action="store_true", help="INPUT is a clean image: measure it "
                     "first, and report how near the answer comes")  # fmt: skip
    _add_sampling(one)
    one.add_argument("--crop", action="store_true", help="cut the middle out where the size does "
                     "not fit the prior")  # fmt: skip
    group = one.add_argument_group("forward models")
    group.add_argument("--blur-sigma", type=float, metavar="PIXELS", help="blur: Gaussian kernel")
    group.add_argument("--kernel", type=Path, metavar="FILE", help="blur: kernel, .npy as it is or "
                       "a picture brought to sum 1")  # fmt: skip
    group.add_argument("--padding", default="reflect", help="blur: beyond the border (reflect)",
                       choices=("reflect", "circular", "replicate", "constant"))  # fmt: skip
    group.add_argument("--mask", type=Path, metavar="FILE", help="inpaint: 0 where pixels are "
                       "missing, largest value where they are seen")  # fmt: skip
    group.add_argument("--keep", type=float, metavar="FRACTION", help="inpaint with --simulate: "
                       "random pixels seen")  # fmt: skip
    group.add_argument("--factor", type=int, metavar="F", help="downsample: F x F averages")
    group.add_argument("--angles", type=int, metavar="N", help="ct: N even steps over 180 degrees")
    group.add_argument("--angles-file", type=Path, metavar="FILE", help="ct: degrees, .npy or text")
    group.add_argument("--spacing", type=float, metavar="MM", help="ct: pixel and detector spacing "
                       "(the DICOM file's, else 1)")  # fmt: skip

    one = add("train", _train, "train a prior on your own images")
    one.add_argument("--data", type=Path, required=True, metavar="FILE|FOLDER", help=".npy or .npz "
                     "of (N, H, W) or (N, C, H, W), or a folder of images")  # fmt: skip
    one.add_argument("--key", help="which array of an .npz, e.g. x_train")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the prior "
                     "goes; an interrupted run goes on from its .state")  # fmt: skip
    one.add_argument("--force", action="store_true", help="replace a prior that is there")
    one.add_argument("--crop", "--image-size", type=int, metavar="PIXELS", help="train on random "
                     "squares of this side; by default on whole images")  # fmt: skip
    one.add_argument("--data-range", type=float, nargs=2, metavar=("LO", "HI"), help="what the "
                     "values span; needed for floats (0 1; CT -1024 3072)")  # fmt: skip
    for name, kind, default in (
        ("--steps", int, 2000), ("--batch", int, 32), ("--lr", float, 1e-3), ("--seed", int, 0),
        ("--layers", int, 1), ("--patch", int, 1),
    ):  # fmt: skip
        one.add_argument(name, type=kind, default=default, help=f"({default})")
    one.add_argument("--threads", type=int)
    one.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128], help="channels at "
                     "each resolution, multiples of 16 (32 64 128)")  # fmt: skip
    one.add_argument("--rotate", action="store_true", help="also turned by 90 degrees and mirrored")
    one.add_argument("--flip", action="store_true", help="also mirrored left-right")
    one.add_argument("--zoom", type=float, nargs=2, default=(1.0, 1.0), metavar=("LO", "HI"))

    add("methods", _methods, "the posterior samplers, what they need and cost")
    return top


def _add_sampling(one: argparse.ArgumentParser) -> None:
    one.add_argument("--prior", required=True, metavar="NAME|FOLDER", help="bundled, or a folder")
    one.add_argument("--data-range", type=float, nargs=2, metavar=("LO", "HI"), help="what the "
                     "prior's images span, where its folder does not say")  # fmt: skip
    one.add_argument("--method", help="see `inverse methods`; by default the best that applies")
    one.add_argument("-n", type=int, default=8, help="number of samples (8)")
    one.add_argument("--steps", type=int, help="noise levels; by default the method's")
    one.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (0)")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    one.add_argument("--force", action="store_true", help="replace files that are there")


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal: show(steps done, steps in all)."""
    from tqdm import tqdm

    with tqdm(desc=label, leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _demo(args: argparse.Namespace) -> None:
    _prepare(args, ())
    from . import demo

    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable[[int, int], None]] = {}

        def show(job: str, step: Step) -> None:
            if job not in bars:
                stack.close()
                bars[job] = stack.enter_context(_bar(job))
            bars[job](step.index, step.total)

        results = demo.run(args.out, args.seed, show, digit=args.digit)
    print(demo.table(results))
    print(f"pictures and metrics.json are in {args.out}")


def _methods(args: argparse.Namespace) -> None:
    from .recipes import methods

    for m in methods():
        print(f"{m.name}  ({m.family}; {m.steps} steps by default)")
        rows = {"needs": m.needs, "cost": m.cost, "exact when": m.exact_when, "paper": m.paper}
        print("\n".join(f"    {name:<11} {text}" for name, text in rows.items()))


def _prepare(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse bad settings and an occupied folder before anything is computed."""
    from .recipes import find

    if getattr(args, "method", None) is not None:
        find(args.method)
    for option in ("n", "steps", "batch"):
        value = getattr(args, option, None)
        if value is not None and value < 1:
            dashes = "-" if len(option) == 1 else "--"
            raise ValueError(f"{dashes}{option} {value}: must be at least 1; choose a larger one")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed {args.seed}: must lie in [0, 2^63); choose another")
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; name a folder for --out")
    there = [name for name in names if (out / name).exists()]
    if there and not args.force:
        raise ValueError(f"{out}: holds {', '.join(there)} already; add --force to replace")


def _load_prior(args: argparse.Namespace, label: int | None = None) -> NetworkPrior:
    import priors

    span = None if args.data_range is None else (args.data_range[0], args.data_range[1])
    try:
        return priors.load(args.prior, data_range=span, class_label=label)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"--prior {args.prior}: {error}") from error


def _check_finite(samples: Samples) -> None:
    bad = int((~samples.x.isfinite()).sum())
    if bad:
        raise FloatingPointError(f"the samples hold {bad} values that are not finite; more --steps")


SAVED = ("samples.npy", "mean.npy", "std.npy", "diagnostics.json", "panel.png")


def _sample(args: argparse.Namespace) -> None:
    _prepare(args, SAVED)
    import torch

    from forward_models import load_classifier
    from priors import pretrained

    from . import condition, sample
    from .figures import Column, panel

    if args.label is None and (args.classifier or args.method):
        raise ValueError("--method and --classifier: need a --class; leave them out, or add it")
    classifier = args.classifier
    if args.label is not None and not classifier and args.prior in pretrained.bundled_names():
        classifier = f"{args.prior}-noisy"
    prior = _load_prior(args, None if classifier else args.label)
    target: Any = prior
    if classifier:
        target = condition(prior, load_classifier(classifier), torch.tensor(args.label))
    method = args.method if classifier else None
    with _bar("sampling") as show:
        samples = sample(
            target, args.n, method=method, steps=args.steps, seed=args.seed,
            callback=lambda step: show(step.index, step.total),
        )  # fmt: skip
    _check_finite(samples)
    samples.save(args.out)
    columns = [Column(f"sample {i + 1}", x) for i, x in enumerate(samples.x[:8])]
    panel(args.out / "panel.png", columns, window=_window(prior))
    print(f"{args.n} samples in {samples.diagnostics['seconds']:.1f} s are in {args.out}")


def _window(prior: NetworkPrior) -> tuple[float, float]:
    return CT_WINDOW if _hounsfield(prior) else prior.data_range or (0.0, 1.0)


def _hounsfield(prior: NetworkPrior) -> bool:
    """A prior whose values start at air's -1000 HU or below is one of CT in Hounsfield units."""
    return prior.data_range is not None and prior.data_range[0] <= -1000


def _reconstruct(args: argparse.Namespace) -> None:
    _prepare(args, (*SAVED, "metrics.json"))
    import torch

    from . import classical, condition, sample
    from .figures import Column, panel
    from .io import read_image, write_bytes

    if not 0 < args.sigma < math.inf:
        raise ValueError(f"--sigma {args.sigma}: the noise must be positive; state a small one")
    image = read_image(args.input)
    if image.units == "hounsfield" and not args.simulate:
        raise ValueError(f"{args.input}: a CT slice is an image, no measurement; add --simulate")
    prior = _load_prior(args)
    _check_units(args, image, prior)
    generator = torch.Generator().manual_seed(args.seed)
    data = _fitted(args, image.data, prior)
    operator = _operator(args, data, image, prior, generator)
    truth = data[None] if args.simulate else None
    model, y, shown = _measure(args, operator, data, prior, generator)
    answer, name = _classical(args, model, y, truth)
    with _bar(args.forward) as show:
        samples = sample(
            condition(prior, model, y), args.n, method=args.method, steps=args.steps,
            seed=args.seed, callback=lambda step: show(step.index, step.total),
        )  # fmt: skip
    _check_finite(samples)
    samples.save(args.out)
    assert prior.data_range is not None
    width = prior.data_range[1] - prior.data_range[0]
    span = 1.0 if image.units == "intensity" else float(data.max() - data.min()) or width
    report: dict[str, Any] = {"residual_sigma": math.sqrt(samples.diagnostics["reduced_chi2"])}
    notes = {"classical": "", "mean": ""}
    for key, estimate in (("classical", answer), ("mean", samples.mean[None])):
        if truth is not None and estimate is not None:
            report[f"psnr_{key}"] = classical.psnr(truth, estimate, span)
            report[f"ssim_{key}"] = classical.ssim(truth[0], estimate[0], span)
            notes[key] = f"{report[f'psnr_{key}']:.1f} dB"
    write_bytes(args.out / "metrics.json", (json.dumps(report, indent=2) + "\n").encode())
    columns = [] if truth is None else [Column("truth", truth[0])]
    columns.append(
        Column("measurement", shown, "", "sinogram" if args.forward == "ct" else "image")
    )
    if answer is not None:
        columns.append(Column(name, answer[0], notes["classical"]))
    columns.append(Column("posterior mean", samples.mean, notes["mean"]))
    if len(samples) > 1:
        columns.append(Column("standard deviation", samples.std, "", "std"))
    columns += [Column(f"sample {i + 1}", x) for i, x in enumerate(samples.x[:3])]
    panel(args.out / "panel.png", columns, window=_window(prior))
    print("\n".join(f"{key:<15} {value:.4g}" for key, value in report.items()))
    print(f"{args.n} samples by {samples.diagnostics['method']} are in {args.out}")


def _check_units(args: argparse.Namespace, image: Image, prior: NetworkPrior) -> None:
    assert prior.data_range is not None
    low, high = prior.data_range
    if image.units == "hounsfield" and not _hounsfield(prior):
        raise ValueError(
            f"{args.input}: is in Hounsfield units, the prior's images span [{low:g}, {high:g}]; "
            "use a CT prior"
        )
    if image.units == "intensity" and (low, high) != (0.0, 1.0):
        raise ValueError(
            f"{args.input}: is a picture in [0, 1], the prior's images span [{low:g}, {high:g}]; "
            "say --data-range 0 1 if they are the same pictures, or pass an .npy in those units"
        )
    wide = high - low
    least, most = float(image.data.min()), float(image.data.max())
    if args.simulate and not (low - wide <= least and most <= high + wide):
        raise ValueError(
            f"{args.input}: spans [{least:g}, {most:g}], the prior's images [{low:g}, {high:g}]; "
            "convert it to the prior's units"
        )


def _fitted(args: argparse.Namespace, data: Tensor, prior: NetworkPrior) -> Tensor:
    """The image or measurement, in a size whose image the prior takes."""
    if args.forward == "ct" and not args.simulate:
        return data
    if args.forward == "downsample" and (args.factor is None or args.factor < 1):
        raise ValueError("--factor: downsample needs a whole number of at least 1; state it")
    factor = args.factor if args.forward == "downsample" else 1
    enlarge = 1 if args.simulate else factor
    channels, height, width = data.shape
    if channels != prior.event_shape[0]:
        raise ValueError(
            f"{args.input}: has {channels} channels, the prior takes {prior.event_shape[0]}; "
            "convert it, or choose another prior"
        )
    if prior.any_size:
        grain = math.lcm(prior.stride, factor)
        allowed = f"multiples of {grain}"
        size = tuple(n * enlarge // grain * grain for n in (height, width))
    else:
        allowed = f"{prior.event_shape[1]} x {prior.event_shape[2]}"
        size = prior.event_shape[1:]
    if (height * enlarge, width * enlarge) == size:
        return data
    rows, columns = size[0] // enlarge, size[1] // enlarge
    if not args.crop or min(rows, columns) < 1 or rows > height or columns > width:
        advice = "choose another image" if args.crop else "add --crop, or resize it"
        raise ValueError(
            f"{args.input}: the image is {height * enlarge} x {width * enlarge}, the prior takes "
            f"{allowed} pixels; {advice}"
        )
    return _middle(data, rows, columns)


def _middle(data: Tensor, rows: int, columns: int) -> Tensor:
    top, left = (data.shape[-2] - rows) // 2, (data.shape[-1] - columns) // 2
    return data[..., top : top + rows, left : left + columns].contiguous()


def _operator(
    args: argparse.Namespace, data: Tensor, image: Image, prior: NetworkPrior, generator: Any
) -> Any:
    import torch

    import forward_models as fm

    from .io import check_file, read_array, read_image

    if args.forward == "blur":
        if (args.blur_sigma is None) == (args.kernel is None):
            raise ValueError("--forward blur: needs --blur-sigma or --kernel; give one of them")
        if args.kernel is None:
            return fm.Blur(fm.gaussian_kernel(args.blur_sigma), args.padding)
        kernel = read_image(args.kernel)
        if kernel.data.shape[0] != 1 or not float(kernel.data.sum()) > 0:
            raise ValueError(f"{args.kernel}: a kernel has one channel and a positive sum; fix it")
        taps = kernel.data[0].double()
        return fm.Blur(taps if kernel.units == "raw" else taps / taps.sum(), args.padding)
    if args.forward == "downsample":
        return fm.Downsampling(args.factor)
    if args.forward == "inpaint":
        if (args.mask is None) == (args.keep is None) or (args.keep and not args.simulate):
            raise ValueError(
                "--forward inpaint: needs --mask, or with --simulate alone --keep; give one of them"
            )
        if args.mask is None:
            return fm.Inpainting(fm.random_mask(tuple(data.shape[-2:]), args.keep, generator))
        return fm.Inpainting(_read_mask(args.mask, tuple(image.data.shape[-2:]), data))
    if (args.angles is None) == (args.angles_file is None):
        raise ValueError("--forward ct: needs --angles or --angles-file; give one of them")
    if args.angles is not None:
        if args.angles < 1:
            raise ValueError(f"--angles {args.angles}: must be at least 1; choose more")
        angles = torch.arange(args.angles, dtype=torch.float64) * (180 / args.angles)
    elif args.angles_file.suffix == ".npy":
        angles = torch.from_numpy(read_array(args.angles_file))
    else:
        check_file(args.angles_file)
        words = args.angles_file.read_text(encoding="utf-8", errors="replace").split()
        try:
            angles = torch.tensor([float(word) for word in words], dtype=torch.float64)
        except ValueError as error:
            raise ValueError(f"{args.angles_file}: {error}; list degrees, one a line") from None
    if prior.event_shape[0] != 1:
        raise ValueError(f"--prior {args.prior}: ct needs images of one channel; use a CT prior")
    spacing: Any = (image.spacing or 1.0) if args.spacing is None else args.spacing
    if args.simulate:
        return fm.Tomography(tuple(data.shape[-2:]), angles, pixel_spacing=spacing)
    if data.shape[0] != 1 or data.shape[1] != len(angles):
        raise ValueError(
            f"{args.input}: a sinogram has shape (angles, detectors) = ({len(angles)}, any), got "
            f"{tuple(data.shape[1:])}; check --angles, or transpose it"
        )
    shape = prior.event_shape[1:]
    detectors = data.shape[2]
    return fm.Tomography((shape[0], shape[1]), angles, pixel_spacing=spacing, detectors=detectors)


def _read_mask(path: Path, size: tuple[int, ...], data: Tensor) -> Tensor:
    """A bool mask (H, W) for the image as read, cut with it."""
    import torch

    from .io import read_array, read_image

    if path.suffix == ".npy":
        values = torch.from_numpy(read_array(path)).double()
    else:
        values = read_image(path).data.amax(0).double()
    if tuple(values.shape) != size:
        raise ValueError(
            f"{path}: has shape {tuple(values.shape)}, the image {size}; make them one"
        )
    levels = values.unique().tolist()
    if len(levels) > 2 or levels[0] < 0 or levels[-1] <= 0 or (len(levels) == 2 and levels[0] != 0):
        raise ValueError(
            f"{path}: has {len(levels)} values, expected 0 (missing) and one other (seen); "
            "threshold it"
        )
    return _middle(values > 0, *data.shape[-2:])


def _measure(
    args: argparse.Namespace, operator: Any, data: Tensor, prior: NetworkPrior, generator: Any
) -> tuple[LinearGaussian, Tensor, Tensor]:
    """The forward model, its measurement y, and the measurement as it is shown."""
    from forward_models import LinearGaussian, hounsfield_sinogram, hounsfield_to_attenuation

    y = data[None]
    if args.forward != "ct" or not _hounsfield(prior):
        model = LinearGaussian(operator, args.sigma)
        y = model.simulate(y, generator) if args.simulate else y
        return model, y, y[0]
    if args.simulate:
        y = LinearGaussian(operator, args.sigma).simulate(hounsfield_to_attenuation(y), generator)
    linear, factor = hounsfield_sinogram(operator, y)
    return LinearGaussian(operator, factor * args.sigma), linear, y[0]


def _classical(
    args: argparse.Namespace, model: LinearGaussian, y: Tensor, truth: Tensor | None
) -> tuple[Tensor | None, str]:
    from forward_models import Blur, Inpainting, Tomography

    from . import classical

    operator = model.operator
    if isinstance(operator, Tomography):
        answer, name = classical.back_project(operator, y, truth)
        return answer, f"FBP, {name}"
    if isinstance(operator, Blur) and operator.padding == "circular":
        return classical.wiener(operator, y, args.sigma), "Wiener filter"
    if isinstance(operator, Inpainting):
        return classical.fill(operator.mask, y, args.sigma), "biharmonic + NLM"
    return None, ""


def _train(args: argparse.Namespace) -> None:
    _prepare(args, ("model_index.json",))
    import hashlib

    import torch

    import priors
    from priors.training import Augmentation, Images, Recipe, heldout_error, train, unet

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    images, (low, high) = _training_images(args)
    to_network = 2 / (high - low)
    generator = torch.Generator().manual_seed(args.seed)
    order = torch.randperm(len(images), generator=generator).tolist()
    # A tenth is kept out to judge by, at most 64; a single image has to do both.
    count = min(len(images) // 10 or int(len(images) > 1), 64)
    held, training = order[:count] or order, order[count:]
    scaled = [(images[i] - low) * to_network - 1 for i in training]
    zoom = (args.zoom[0], args.zoom[1])
    views = Images(scaled, Augmentation(args.crop, zoom, args.flip, args.rotate))
    data_std = float(torch.cat([im.flatten() for im in scaled]).std())
    recipe = Recipe(
        args.steps, args.batch, args.lr, seed=args.seed, sigma_data=round(max(data_std, 0.05), 3)
    )
    torch.manual_seed(args.seed)
    network = unet(views.event_shape, args.widths, args.layers, args.patch)

    digest = hashlib.sha256()
    for image in scaled:
        digest.update(image.numpy().tobytes())
    settings = [args.widths, args.layers, args.patch, repr(views.augmentation), digest.hexdigest()]
    state = args.out / ".state"
    state.mkdir(parents=True, exist_ok=True)
    note = state / "settings.json"
    if note.exists() and json.loads(note.read_text()) != settings:
        raise ValueError(
            f"{state}: holds a run on other data or settings; delete it to start again"
        )
    note.write_text(json.dumps(settings))
    with _bar("training") as show:
        network = train(network, views, recipe, state, lambda step, _: show(step, args.steps))
    unit = 1 / to_network
    levels = (recipe.sigma_range[0] * unit, recipe.sigma_range[1] * unit)
    stride = args.patch * 2 ** (len(args.widths) - 1)
    inner: Any = network.network if args.patch > 1 else network
    priors.save(
        inner, args.out, event_shape=views.event_shape, data_range=(low, high), sigma_range=levels,
        sigma_data=recipe.sigma_data, patch=args.patch, any_size=True, stride=stride,
    )  # fmt: skip
    prior = priors.load(args.out)
    _, height, width = views.event_shape
    judged = torch.stack([_middle(images[i], height, width) for i in held])
    sigmas = [s * unit for s in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)]
    errors = heldout_error(prior, judged, sigmas)
    print("noise level   error of the denoised image (root mean square, "
          f"{len(held)} {'held-out' if count else 'training'} images)")  # fmt: skip
    print("\n".join(f"{s:11.4g}   {e:.4g}" for s, e in zip(sigmas, errors, strict=True)))
    if not all(math.isfinite(e) for e in errors):
        raise FloatingPointError("the trained prior's errors are not finite; lower --lr")
    shutil.rmtree(state, ignore_errors=True)
    print(f"the prior is in {args.out}; use it with --prior {args.out}")


def _training_images(args: argparse.Namespace) -> tuple[list[Tensor], tuple[float, float]]:
    """Images (C, H, W) in data units, and the range they span."""
    import torch

    from .io import SUFFIXES, read_array, read_image

    path: Path = args.data
    span: tuple[float, float] | None = None
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(
                f"{path}: holds no images ({', '.join(SUFFIXES)}); name another folder"
            )
        read = [read_image(p) for p in files]
        units = {image.units for image in read}
        if len(units) > 1:
            raise ValueError(f"{path}: mixes images in {', '.join(sorted(units))}; separate them")
        images = [image.data for image in read]
        span = {"intensity": (0.0, 1.0), "hounsfield": (-1024.0, 3072.0)}.get(units.pop())
    else:
        array = read_array(path, 2**30, args.key)
        if array.ndim not in (3, 4) or array.dtype.kind not in "fu":
            raise ValueError(
                f"{path}: holds {array.dtype} of shape {array.shape}; expected floats or uint8 of "
                "shape (N, H, W) or (N, C, H, W)"
            )
        if array.dtype.kind == "u":
            if array.dtype.itemsize > 1:
                raise ValueError(f"{path}: holds {array.dtype}; convert it to floats or uint8")
            span = (0.0, 1.0)
        whole = torch.from_numpy(array).float() / (255 if array.dtype.kind == "u" else 1)
        images = list(whole if whole.ndim == 4 else whole[:, None])
    if args.data_range is not None:
        span = (args.data_range[0], args.data_range[1])
    if span is None:
        raise ValueError(f"{path}: holds floats of unknown range; state it with --data-range")
    if not span[0] < span[1]:
        raise ValueError(f"--data-range {span[0]:g} {span[1]:g}: must increase; swap them")
    least = min(float(image.min()) for image in images)
    most = max(float(image.max()) for image in images)
    if not (span[0] <= least and most <= span[1]):
        raise ValueError(
            f"{path}: spans [{least:g}, {most:g}], beyond [{span[0]:g}, {span[1]:g}]; widen "
            "--data-range"
        )
    return images, span


if __name__ == "__main__":
    raise SystemExit(main())
