"""Train the bundled classifiers of digits, clean and noise-conditional.

    python benchmarks/train_classifiers.py --data FOLDER

FOLDER holds mnist/mnist.npz. Each is written with a card that states its held-out accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from forward_models import (
    Classifier,
    ConvClassifier,
    NoisyClassifier,
    save_classifier,
    train_classifier,
)

BUNDLED = Path(__file__).parent.parent / "forward_models" / "classifiers" / "bundled"
SIGMA_RANGE = (0.0025, 20.0)
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@torch.no_grad()
def accuracy(model: Classifier | NoisyClassifier, x0, labels, sigma: float = 0.0) -> float:
    """Share of images whose most probable class, at noise level sigma, is theirs."""
    g = torch.Generator().manual_seed(0)
    right = 0
    for images, truth in zip(x0.split(500), labels.split(500), strict=True):
        x = images + sigma * torch.randn(images.shape, generator=g)
        if isinstance(model, NoisyClassifier):
            logits = model.logits(x, max(sigma, SIGMA_RANGE[0]))
        else:
            logits = model.logits(x)
        right += int((logits.argmax(1) == truth).sum())
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", nargs="*", default=["digits", "digits-noisy"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    file = np.load(args.data / "mnist" / "mnist.npz", allow_pickle=False)
    train, dev = (
        (
            torch.from_numpy(file[f"x_{part}"]).float()[:, None] / 255,
            torch.from_numpy(file[f"y_{part}"]).long(),
        )
        for part in ("train", "dev")
    )
    for name in args.name:
        noisy = name.endswith("-noisy")
        torch.manual_seed(0)
        network = ConvClassifier(10, channels=(16, 32, 64), noise_conditional=noisy)
        with tqdm(total=args.steps, desc=name, mininterval=5) as bar:
            model = train_classifier(
                network, *train, noisy=noisy, sigma_range=SIGMA_RANGE, steps=args.steps,
                progress=lambda step, loss, bar=bar: bar.update(),
            )  # fmt: skip
        save_classifier(model, BUNDLED / name)
        levels = LEVELS if noisy else ()
        rows = [(0.0, accuracy(model, *dev)), *((s, accuracy(model, *dev, s)) for s in levels)]
        (BUNDLED / name / "README.md").write_text(card(name, noisy, args.steps, rows))
        print(name, rows)


def card(name: str, noisy: bool, steps: int, rows: list[tuple[float, float]]) -> str:
    kind = "p_sigma(y | x), at every noise level" if noisy else "p(y | x0), for clean images"
    table = "\n".join(f"| {sigma:g} | {value:.4f} |" for sigma, value in rows)
    return f"""# {name}

A classifier of handwritten digits 28 x 28 in [0, 1]: {kind}.

- Data: MNIST (CC BY-SA 3.0), 60000 training images; the accuracies are of 5000 others.
- Recipe: `python benchmarks/train_classifiers.py --data FOLDER --steps {steps}`, 128 images a step.
- Not good for: other data than MNIST; its probabilities are not calibrated off that set.

| sigma | accuracy |
|---|---|
{table}
"""


if __name__ == "__main__":
    main()
