"""Train the bundled classifiers by the recipes beside them, and write their cards.

    python benchmarks/train_classifiers.py fashion-noisy --data FOLDER --work FOLDER

FOLDER of --data holds mnist/mnist.npz and fashion_mnist/fashion_mnist.npz. A run that was
interrupted, or is complete in the folder of --work, is gone on with.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from inverse import cli

BUNDLED = Path(__file__).parent.parent / "forward_models" / "classifiers" / "bundled"

SUBJECTS = {
    "digits": (
        "handwritten digits",
        "mnist/mnist.npz",
        "MNIST (CC BY-SA 3.0, LeCun, Cortes and Burges), 60000 training images",
        "",
    ),
    "fashion": (
        "pictures of clothes",
        "fashion_mnist/fashion_mnist.npz",
        "Fashion-MNIST (MIT, Zalando), 20000 of its training images, 2000 a class",
        "\n- Classes: 0 T-shirt, 1 trousers, 2 pullover, 3 dress, 4 coat, 5 sandal, 6 shirt, "
        "7 sneaker, 8 bag, 9 ankle boot.",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [f"{subject}{kind}" for subject in SUBJECTS for kind in ("", "-noisy")]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    for name in args.names:
        file = args.data / SUBJECTS[name.removesuffix("-noisy")][1]
        out, home = args.work / name, BUNDLED / name
        if not (out / "run.json").exists():
            argv = [str(home / "recipe.yaml"), f"data.path={file}", "--out", str(out)]
            status = cli.main(["train", *argv, "--threads", "1"])
            if status:
                raise SystemExit(status)
        for part in ("config.json", "model.safetensors"):
            shutil.copyfile(out / part, home / part)
        run = json.loads((out / "run.json").read_text())
        (home / "README.md").write_text(card(name, run))
        print(f"wrote {home}")


def card(name: str, run: dict) -> str:
    subject, _, source, classes = SUBJECTS[name.removesuffix("-noisy")]
    kind = "p(class | x0), for clean images"
    if name.endswith("-noisy"):
        kind = "p_sigma(class | x), at every noise level"
    rows = "\n".join(
        f"| {r['sigma']:g} | {r['accuracy']:.4f} | {r['log_loss']:.4f} | {r['error']:.4f} | "
        f"{r['floor']:.4f} | {r['ceiling']:.4f} |"
        for r in run["calibration"]
    )
    return f"""# {name}

A classifier of {subject} 28 x 28 in [0, 1]: {kind}.

- Data: {source}; judged on {run["images"]["held_out"]} images that training did not see.{classes}
- Recipe: [recipe.yaml](recipe.yaml), seed {run["seed"]};
  `inverse train recipe.yaml data.path=FILE`.
- Network: {run["parameters"]} parameters, float32.
- Trained in {run["seconds"] / 60:.0f} minutes by {run["threads"]} thread on two busy cores,
  {run["hardware"]}.
- Not good for: other pictures than these. No temperature was fitted: the probabilities are the \
network's own.

Held-out accuracy, log-loss (nats) and expected calibration error, 15 bins of equal size; the error
that sampling alone leaves to a classifier whose probabilities are right, and what it exceeds in one
case of twenty.

| sigma | accuracy | log-loss | calibration error | by chance | 95 % |
|---|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
