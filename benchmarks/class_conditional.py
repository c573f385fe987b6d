"""Digits of a class asked for: who draws the right one, and how many different ones.

    python benchmarks/class_conditional.py --data mnist.npz --work FOLDER [--samples 16] [--fast]

The prior is the bundled `digits`; it is guided by the noise-conditional classifier, which is
p_sigma(class | x) itself, or by the clean one through each approximation of p_sigma, at several
guidance scales w (the likelihood to the power w). Another classifier, `digit_judge.Judge`, trained
here and used by no method, says what was drawn.

    accuracy    share of samples that the judge gives the class asked for
    spread      mean distance in pixels between two samples of a class, over that of real digits
    precision   share of samples within reach of real digits of their class (judge's features)
    coverage    share of real digits of a class within reach of a sample (judge's features)

with standard errors. Beside them stand real digits, and draws of p(x0) p(class | x0)^w that need no
p_sigma at all: unconditional ones, accepted with probability p(class | x0)^w.

"plug-in" and "Monte-Carlo" are likelihoods to the power w under the sampler of the exact method,
"mean guidance" one without the Jacobian under DDPM steps. dps, lgd, mpgd, dsg, freedom and tfg are
the methods of `inverse.sample` as published, and their scale is an option of their own.

Samples are kept in the folder of --work, round after round, and an interrupted run goes on there;
it must be empty when prior, classifiers or methods are others. Written to
benchmarks/results/class_conditional.json and .png, or to --out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import digit_judge
import torch
from class_methods import METHODS, ROUND, SCALES, Drawn
from class_metrics import CLASSES, Table, frequencies, share
from torch import Tensor

from forward_models import load_classifier
from priors import load

RESULTS = Path(__file__).parent / "results" / "class_conditional.json"


def kept(file: Path, draw: Callable[[], Drawn]) -> Drawn:
    """What the file holds, drawn first where there is none."""
    if not file.exists():
        drawn = draw()
        part = file.with_suffix(".part")
        torch.save(vars(drawn), part)
        part.replace(file)
    return Drawn(**torch.load(file, weights_only=True))


@torch.no_grad()
def accepted(pool: Tensor, scale: float, count: int) -> tuple[list[Tensor], float]:
    """Draws of p(x0) p(class | x0)^w out of draws of p(x0), at most `count` of each class.

    Each draw of the prior goes to one class, with probability p(class | x0)^w, or to none. Also
    how many of them a draw of one class takes.
    """
    p = load_classifier("digits").logits(pool).double().softmax(1) ** scale
    none = (1 - p.sum(1, keepdim=True)).clamp(min=0)
    generator = torch.Generator().manual_seed(0)
    given = torch.multinomial(torch.cat([p, none], 1), 1, generator=generator)[:, 0]
    tries = CLASSES * len(pool) / int((given < CLASSES).sum())
    return [pool[given == c][:count] for c in range(CLASSES)], tries


def picture(rows: list[tuple[str, Tensor]], file: Path) -> None:
    """One sample of each class a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(6.6, 0.5 * len(rows)))
    for axis, (label, x) in zip(axes, rows, strict=True):
        axis.imshow(torch.cat(list(x[:, 0]), 1).clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
    figure.subplots_adjust(0.24, 0.005, 0.995, 0.995, hspace=0.04)
    figure.savefig(file, dpi=75)
    plt.close(figure)


def report(
    judge: digit_judge.Judge,
    rounds: dict[tuple[str, float], list[Drawn]],
    args: argparse.Namespace,
) -> None:
    x_dev, y_dev = digit_judge.mnist(args.data, "dev")
    _, y_train = digit_judge.mnist(args.data, "train")
    with torch.no_grad():
        right = share(judge(x_dev).argmax(1) == y_dev)
    # Digits to compare with, and others that stand where samples stand.
    table = Table(judge, x_dev[1000:], y_dev[1000:])
    lines = []

    def add(method: str, x: list[Tensor], shown: bool = True, **facts: Any) -> None:
        y = torch.arange(CLASSES).repeat_interleave(torch.tensor([len(part) for part in x]))
        table.add(torch.cat(x), y, method=method, **facts)
        if shown:
            label = f"{method}, scale {facts['scale']:g}" if "scale" in facts else method
            lines.append((label, torch.stack([part[0] for part in x])))

    add("real digits", [x_dev[:1000][y_dev[:1000] == c][: args.samples] for c in range(CLASSES)])
    pool = torch.cat([r.x for r in rounds["unconditional", 1.0]])
    for scale in SCALES:
        x, tries = accepted(pool, scale, args.samples)
        add("accepted draws", x, scale == 1, classifier="digits", scale=scale,
            network_calls=round(args.levels * tries))  # fmt: skip
    for method in METHODS[1:]:
        for scale in method.scales:
            drawn = rounds.get((method.name, scale))
            if drawn:
                x = torch.cat([r.x.reshape(CLASSES, -1, 1, 28, 28) for r in drawn], 1)
                add(method.name, list(x), classifier=method.classifier, scale=scale,
                    network_calls=drawn[0].network_calls, products=drawn[0].products,
                    processor_seconds=round(drawn[0].seconds, 3))  # fmt: skip
    results = {
        "prior": "digits",
        "levels": args.levels,
        "judge_accuracy": right[0],
        "judge_accuracy_error": round(right[1], 4),
        "unconditional": frequencies(judge, pool, torch.bincount(y_train).double() / len(y_train)),
        "rows": table.rows,
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    picture(lines, args.out.with_suffix(".png"))
    print(json.dumps(results["unconditional"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--work", type=Path, required=True, help="where samples are kept")
    parser.add_argument("--samples", type=int, default=16, help=f"of a class; multiple of {ROUND}")
    parser.add_argument("--levels", type=int, default=50)
    parser.add_argument("--methods", nargs="+", default=[m.name for m in METHODS])
    parser.add_argument("--fast", action="store_true", help="4 samples of a class, 20 levels")
    parser.add_argument("--kept", action="store_true", help="judge what is kept, draw nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.fast:
        args.samples, args.levels = ROUND, 20
    args.work.mkdir(parents=True, exist_ok=True)
    judge = digit_judge.trained(args.work / "judge.pt", args.data)
    prior = load("digits")
    prior.network.to(memory_format=torch.channels_last)

    rounds: dict[tuple[str, float], list[Drawn]] = {}
    for seed in range(args.samples // ROUND):
        for method in METHODS:
            if method.name not in {"unconditional", *args.methods}:
                continue
            for scale in method.scales:
                file = args.work / f"{method.name}-{scale:g}-{args.levels}-{seed}.pt"
                if file.exists() or not args.kept:
                    drawn = kept(file, partial(method.draw, prior, scale, args.levels, seed))
                    rounds.setdefault((method.name, scale), []).append(drawn)
    report(judge, rounds, args)


if __name__ == "__main__":
    main()
