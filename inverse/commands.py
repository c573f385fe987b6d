"""What the commands demo, sample, reconstruct and methods do with their parsed options."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import inverse
import priors
from forward_models import (
    Blur,
    Inpainting,
    LinearGaussian,
    Tomography,
    bundled_classifiers,
    load_classifier,
)
from priors import LatentPrior, NetworkPrior, Prior, pretrained

from . import classical, demo, option_text
from .figures import Column, panel
from .io import write_bytes
from .measurement import data_range, in_hounsfield_units, measure
from .recipes import find
from .result import Samples
from .samplers import Sampler, Step, named

Progress = Callable[[int, int], None]


@contextlib.contextmanager
def progress(label: str) -> Iterator[Progress]:
    """A progress bar on a terminal: show(steps done, steps in all)."""
    from tqdm import tqdm

    with tqdm(desc=label, leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def run_demo(args: Namespace) -> None:
    """Run the demonstration and print its table."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Progress] = {}

        def show(job: str, step: Step) -> None:
            if job not in bars:
                stack.close()
                bars[job] = stack.enter_context(progress(job))
            bars[job](step.index, step.total)

        results = demo.run(args.out, args.seed, show, digit=args.digit)
    print(demo.table(results))
    print(f"pictures and metrics.json are in {args.out}")


def list_methods(args: Namespace) -> None:
    """Print every method, or those asked for, with needs, cost, options and paper."""
    chosen = [find(name) for name in args.names] or list(inverse.methods())
    if args.asks is not None:
        chosen = [m for m in chosen if m.asks == args.asks]
    if args.no_jacobian:
        chosen = [m for m in chosen if not m.jacobian]
    if not chosen:
        raise ValueError("no method is of all these kinds; leave out --asks or --no-jacobian")
    for m in chosen:
        print(f"{m.name}  ({m.family}; {m.steps} steps by default)")
        options = ", ".join(f"{name}={value}" for name, value in m.options.items())
        rows = {"measured": m.measured.replace("; ", "\n" + 16 * " ")}
        rows |= {"asks for": m.asks, "needs": m.needs, "jacobian": "yes" if m.jacobian else "no"}
        rows |= {"cost": m.cost, "exact when": m.exact_when, "options": options or "none"}
        rows |= {"deviates": m.deviates} if m.deviates else {}
        rows |= {"paper": m.paper}
        print("\n".join(f"    {name:<11} {text}" for name, text in rows.items()))
    print(
        "\nmeasured: by ranks of 500 simulated truths among 49 draws, or particles, of about 100 "
        "network calls\neach, whatever the default steps; `inverse calibrate` tells of your problem"
    )


def draw_from_prior(args: Namespace) -> None:
    """Draw from a prior, or from its posterior given a class."""
    if args.sampler and args.method:
        raise ValueError("--sampler and --method: give one of them")
    for option, value in {"--method": args.method, "--classifier": args.classifier}.items():
        if value and args.label is None:
            raise ValueError(f"{option} {value}: is for drawing a class; leave it out, or add "
                             "--class")  # fmt: skip
    classifier = args.classifier or _own_classifier(args)
    prior = load_prior(args, None if classifier else args.label)
    if args.method and not classifier:
        raise ValueError(
            f"--method {args.method}: the prior draws class {args.label} by itself; leave it out, "
            "or add a --classifier"
        )
    target: Prior = prior
    if classifier:
        target = inverse.condition(prior, load_classifier(classifier), torch.tensor(args.label))
    samples = _draw(args, target, args.method if classifier else None, "sampling")
    panel(args.out / "panel.png", _sample_columns(samples, 8), window=_window(prior, samples))
    print("\n".join([*_particles(samples), ""]), end="")
    print(f"{args.n} samples in {samples.diagnostics['seconds']:.1f} s are in {args.out}")


def reconstruct(args: Namespace) -> None:
    """Draw from the posterior given a measurement, beside the classical answer to it."""
    prior = load_prior(args)
    if not isinstance(prior, NetworkPrior):
        raise ValueError(
            f"--prior {args.prior}: an analytic prior draws on the command line, and "
            "reconstructs in Python alone; choose a network's"
        )
    measured = measure(args, prior)
    posterior = inverse.condition(prior, measured.model, measured.y)
    samples = _draw(args, posterior, args.method, args.forward)
    truth, span = measured.truth, measured.span
    answer, name = _classical(measured.model, measured.y, args.sigma, truth)
    report = {"residual_sigma": math.sqrt(samples.diagnostics["reduced_chi2"])}
    notes = {"classical": "", "mean": ""}
    for key, estimate in (("classical", answer), ("mean", samples.mean[None])):
        if truth is not None and estimate is not None:
            report[f"psnr_{key}"] = classical.psnr(truth, estimate, span)
            report[f"ssim_{key}"] = classical.ssim(truth[0], estimate[0], span)
            notes[key] = f"{report[f'psnr_{key}']:.1f} dB"
    write_bytes(args.out / "metrics.json", (json.dumps(report, indent=2) + "\n").encode())
    columns = [] if truth is None else [Column("truth", truth[0])]
    kind: Any = "sinogram" if args.forward == "ct" else "image"
    columns.append(Column("measurement", measured.shown, kind=kind))
    if answer is not None:
        columns.append(Column(name, answer[0], notes["classical"]))
    columns.append(Column("posterior mean", samples.mean, notes["mean"]))
    if len(samples) > 1:
        columns.append(Column("standard deviation", samples.std, kind="std"))
    columns += _sample_columns(samples, 3)
    panel(args.out / "panel.png", columns, window=_window(prior, samples))
    figures = [f"{key:<15} {value:.4g}" for key, value in report.items()]
    print("\n".join([*figures, *_particles(samples)]))
    print(f"{args.n} samples by {samples.diagnostics['method']} are in {args.out}")


def _own_classifier(args: Namespace) -> str | None:
    """The classifier of a bundled prior's classes, where one is asked for."""
    if args.label is None or args.prior not in pretrained.bundled_names():
        return None
    noisy = [name for name in bundled_classifiers() if name.endswith("-noisy")]
    if f"{args.prior}-noisy" not in noisy:
        raise ValueError(
            f"--class {args.label}: {args.prior} has no classifier of its own; choose one with "
            f"--classifier: {', '.join(noisy)}, or a folder"
        )
    return f"{args.prior}-noisy"


def load_prior(args: Namespace, label: int | None = None) -> Prior:
    """The prior that --prior and --data-range name, of images."""
    span = None if args.data_range is None else (args.data_range[0], args.data_range[1])
    try:
        prior = priors.load(args.prior, data_range=span, class_label=label)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"--prior {args.prior}: {error}") from error
    if isinstance(prior, LatentPrior):
        raise ValueError(f"--prior {args.prior}: latent pipelines are served in Python alone")
    if len(prior.event_shape) != 3:
        raise ValueError(
            f"--prior {args.prior}: has events of shape {prior.event_shape}, no images (C, H, W); "
            "it is served in Python alone"
        )
    return prior


def _draw(args: Namespace, target: Prior, method: str | None, label: str) -> Samples:
    """Draw and save; samples that are not finite are refused, not saved."""
    sampler = chosen_sampler(args, target)
    steps = args.steps if sampler is None else None
    with progress(label) as show, _warnings_in_one_line():
        samples = inverse.sample(
            target, args.n, method=method, steps=steps, seed=args.seed, sampler=sampler,
            absorb=args.absorb, callback=lambda step: show(step.index, step.total),
            **method_options(args.option, method),
        )  # fmt: skip
    bad = int((~samples.x.isfinite()).sum())
    if bad:
        raise FloatingPointError(f"the samples hold {bad} values that are not finite; more --steps")
    samples.save(args.out)
    return samples


def method_options(given: list[str], method: str | None) -> dict[str, Any]:
    """The --option texts, which need a --method."""
    if given and method is None:
        raise ValueError(f"--option {given[0]}: options are of a --method; name it")
    if method == "auto" and given:
        raise ValueError(f"--option {given[0]}: auto chooses for itself; name a method")
    return {} if method in (None, "auto") else option_text.read(find(method), given)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """What a run warns of, as a line on stderr; other warnings as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        show = warnings.showwarning

        def line(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, RuntimeWarning):
                print(f"warning: {message}", file=sys.stderr)
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = line
        yield


def chosen_sampler(args: Namespace, target: Prior) -> Sampler | None:
    """The --sampler with its --levels and --steps, if one is named."""
    if args.sampler is not None:
        return named(args.sampler, target, args.steps or 100, args.levels or "geometric")
    if args.levels is not None:
        raise ValueError(f"--levels {args.levels}: are those of a --sampler; name it")
    return None


def _particles(samples: Samples) -> list[str]:
    """What a run of particles is worth, in lines."""
    told = samples.diagnostics
    if samples.weights is None:
        return []
    lines = [f"effective samples {samples.worth}"]
    if told["log_evidence"] is not None:
        error = told["log_evidence_error"]
        lines.append(f"log p(y)        {told['log_evidence']:.5g}"
                     + ("" if error is None else f" +- {error:.2g}"))  # fmt: skip
    return lines


def _classical(
    model: LinearGaussian, y: Tensor, sigma: float, truth: Tensor | None
) -> tuple[Tensor | None, str]:
    """The classical answer and its name, where there is one."""
    operator = model.operator
    if isinstance(operator, Tomography):
        answer, name = classical.back_project(operator, y, truth)
        return answer, f"FBP, {name}"
    if isinstance(operator, Blur) and operator.padding == "circular":
        return classical.wiener(operator, y, sigma), "Wiener filter"
    if isinstance(operator, Inpainting):
        return classical.fill(operator.mask, y, sigma), "biharmonic + NLM"
    return None, ""


def _sample_columns(samples: Samples, most: int) -> list[Column]:
    return [Column(f"sample {i + 1}", x) for i, x in enumerate(samples.equal(most))]


def _window(prior: Prior, samples: Samples) -> tuple[float, float]:
    """What a picture shows from black to white; all the samples of an unbounded prior."""
    if prior.data_range is None:
        return float(samples.x.min()), float(samples.x.max())
    return demo.CT_WINDOW if in_hounsfield_units(prior) else data_range(prior)
