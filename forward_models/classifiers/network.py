"""A small convolutional classifier, its training, and its files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ..checks import check_batched, check_dtype, check_finite, check_positive, check_shape
from .classifier import Classifier, NoisyClassifier, Range, check_labels

_BUNDLED = Path(__file__).parent / "bundled"
_FORMAT = 1


class _Block(nn.Module):
    """conv, norm, FiLM (h -> (1 + a) h + b from the noise level), SiLU, twice, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, embedding: int | None) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(math.gcd(8, outputs), outputs)
        self.norm2 = nn.GroupNorm(math.gcd(8, outputs), outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.film = None if embedding is None else nn.Linear(embedding, 2 * outputs)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.norm1(self.first(x))
        if self.film is not None and embedding is not None:
            a, b = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = (1 + a) * h + b
        h = self.norm2(self.second(self.activation(h)))
        return self.activation(h + self.shortcut(x))


@final
class ConvClassifier(nn.Module):
    """Logits of small images: residual blocks, each followed by 2 x 2 averaging, and a linear head.

    Args:
        num_classes: number of classes.
        channels: width of each block; (24, 48, 80) makes 142 thousand parameters, and 168 thousand
            if noise-conditional.
        image_size: (C, H, W), at least 2^blocks pixels on each side.
        noise_conditional: whether `forward` takes the log noise level too.
    """

    def __init__(
        self,
        num_classes: int,
        channels: tuple[int, ...] = (24, 48, 80),
        image_size: tuple[int, ...] = (1, 28, 28),
        noise_conditional: bool = False,
    ) -> None:
        super().__init__()
        channels, image_size = tuple(channels), tuple(image_size)
        check_shape("channels", channels)
        if len(check_shape("image_size", image_size)) != 3:
            raise ValueError(f"image_size must be (C, H, W), got {image_size}")
        if min(image_size[1:]) < 2 ** len(channels):
            raise ValueError(f"image_size {image_size} is too small for {len(channels)} blocks")
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "channels": list(channels),
            "image_size": list(image_size),
            "noise_conditional": noise_conditional,
        }
        embedding = 64 if noise_conditional else None
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-3, 1, 16), persistent=False)
        self.frequencies: Tensor
        self.embed = (
            nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
            if noise_conditional
            else None
        )
        widths = (image_size[0], *channels)
        self.blocks = nn.ModuleList(_Block(a, b, embedding) for a, b in pairwise(widths))
        self.pool = nn.AvgPool2d(2)
        # The head sees where a feature lies: a mean over all positions would not tell 6 from 9.
        height, width = (n // 2 ** len(channels) for n in image_size[1:])
        self.head = nn.Linear(channels[-1] * height * width, num_classes)

    def forward(self, x: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in network range, log noise level (B,) -> logits (B, num_classes)."""
        if (log_sigma is None) != (self.embed is None):
            raise ValueError("log_sigma goes with noise_conditional=True, and only with it")
        embedding = None
        if self.embed is not None and log_sigma is not None:
            phase = log_sigma[:, None] * self.frequencies
            embedding = self.embed(torch.cat([phase.sin(), phase.cos()], dim=1))
        for block in self.blocks:
            x = self.pool(block(x, embedding))
        logits: Tensor = self.head(x.flatten(1))
        return logits


def train_classifier(
    network: ConvClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    noisy: bool,
    sigma_range: Range = (0.01, 80.0),
    steps: int = 3000,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    data_range: Range = (0.0, 1.0),
    network_range: Range = (-1.0, 1.0),
    progress: Callable[[int, float], None] | None = None,
) -> Classifier | NoisyClassifier:
    """Train the network (in place) by cross-entropy, and return it as a forward model in eval mode.

    With `noisy`, the loss is the cross-entropy on (x0 + sigma eps, y) with log sigma uniform over
    `sigma_range`: its minimiser is exactly p_sigma(y | x). AdamW, one-cycle learning rate.

    Args:
        images: x0, (N, C, H, W) in data units.
        labels: classes, (N,) int64.
        sigma_range: noise levels in data units, used with `noisy` only.
        seed: of the private generator that draws batches and noise; the network's initial weights
            are the caller's.
        progress: called with (step, loss) after every step.

    Raises:
        ValueError: sizes that do not fit, a network of the other kind, or a loss that diverged.
    """
    config = network.config
    if config["noise_conditional"] != noisy:
        raise ValueError(
            f"noisy={noisy} needs ConvClassifier(noise_conditional={noisy}), got "
            f"noise_conditional={config['noise_conditional']}"
        )
    shape = tuple(config["image_size"])
    check_dtype("images", images)
    check_batched("images", images, shape, None)
    check_finite("images", images)
    if check_labels(labels, config["num_classes"]).shape[0] != images.shape[0]:
        raise ValueError(f"{labels.numel()} labels for {images.shape[0]} images")
    low, high = (check_positive("sigma_range", value) for value in sigma_range)
    model = _wrap(network, data_range, network_range)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    network.train()
    for step in range(steps):
        index = torch.randint(images.shape[0], (batch,), generator=generator)
        x, y = images[index.to(images.device)], labels[index.to(labels.device)]
        if isinstance(model, NoisyClassifier):
            log_sigma = torch.rand(batch, generator=generator) * math.log(high / low)
            sigma = (low * log_sigma.exp()).to(x)
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            x = x + sigma[:, None, None, None] * eps
            loss = -model.log_likelihood(y, x, sigma).mean()
        else:
            loss = -model.log_likelihood(y, x).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {step} of {steps}; lower lr={lr}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, value)
    network.eval()
    return model


def _wrap(
    network: ConvClassifier, data_range: Range, network_range: Range, scale: float = 0.5
) -> Classifier | NoisyClassifier:
    classes, shape = network.config["num_classes"], tuple(network.config["image_size"])
    if network.config["noise_conditional"]:
        return NoisyClassifier(network, classes, shape, data_range, network_range, scale)
    return Classifier(network, classes, shape, data_range, network_range)


def save_classifier(model: Classifier | NoisyClassifier, folder: str | Path) -> None:
    """Write config.json and model.safetensors of a `ConvClassifier` model into the folder.

    Raises TypeError for any other network: its code could not be stored.
    """
    from safetensors.torch import save

    if not isinstance(model.network, ConvClassifier):
        raise TypeError(f"only a ConvClassifier can be saved, got {type(model.network).__name__}")
    state = {k: v.detach().cpu().contiguous() for k, v in model.network.state_dict().items()}
    weights = save(state)
    config = {
        "format": _FORMAT,
        "network": model.network.config,
        "data_range": list(model.data_range),
        "network_range": list(model.network_range),
        "scale": getattr(model, "scale", None),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").write_bytes(weights)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_classifier(folder: str | Path) -> Classifier | NoisyClassifier:
    """Read a classifier from a folder, or a bundled one by name, in eval mode on the CPU.

    Nothing is executed: the weights are safetensors with a checksum, the configuration JSON with
    exactly the known keys.

    Raises:
        ValueError: an unknown name (the bundled ones are listed), or files that are damaged or of
            another format.
    """
    from safetensors.torch import load

    path = Path(folder)
    if not (path / "config.json").is_file() and path.name == str(folder):
        path = _BUNDLED / path.name
    if not (path / "config.json").is_file():
        known = sorted(p.parent.name for p in _BUNDLED.glob("*/config.json"))
        raise ValueError(
            f"no classifier {str(folder)!r}: neither a folder with config.json nor one of the "
            f"bundled ones ({', '.join(known) or 'none'})"
        )
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        weights = (path / "model.safetensors").read_bytes()
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        expected = {"format", "network", "data_range", "network_range", "scale", "sha256"}
        if set(config) != expected:
            raise ValueError(f"its keys are {sorted(config)}, expected {sorted(expected)}")
        found = hashlib.sha256(weights).hexdigest()
        if found != config["sha256"]:
            raise ValueError(f"model.safetensors has sha256 {found}, expected {config['sha256']}")
        network = ConvClassifier(**config["network"])
        network.load_state_dict(load(weights), strict=True)
        low_high = tuple(config["data_range"]), tuple(config["network_range"])
        model = _wrap(network.eval(), *low_high, config["scale"] or 0.5)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot load the classifier in {path}: {error}") from error
    return model
