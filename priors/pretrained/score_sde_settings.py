"""Settings of score_sde_pytorch: an architecture and a diffusion, by dictionary, file or name.

The names and values are those of its configuration files. What shapes a network's function is
required, because the weights fit equally with other values; what only training or sampling used is
passed over.

Paper: Song et al., "Score-Based Generative Modeling through SDEs", 2021, https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .safe_files import read_json
from .score_sde_published import PUBLISHED

_LIMIT = 2**16


@dataclass(frozen=True)
class Architecture:
    """A network, as its configuration file describes it; fir_kernel None for no FIR filter."""

    name: str
    image_size: int
    num_channels: int
    centered: bool
    nf: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    resamp_with_conv: bool
    conditional: bool
    fir_kernel: tuple[float, ...] | None
    skip_rescale: bool
    resblock_type: str
    progressive: str
    progressive_input: str
    embedding_type: str

    @property
    def levels(self) -> range:
        return range(len(self.ch_mult))

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.nf * self.ch_mult[level]

    def attends(self, level: int) -> bool:
        """Whether a level has attention: it depends on the size of its image."""
        return self.image_size // 2**level in self.attn_resolutions


@dataclass(frozen=True)
class Diffusion:
    """The SDE of the training: `low` and `high` are its ends, sigma for vesde, beta for others."""

    sde: str
    continuous: bool
    low: float
    high: float
    num_scales: int
    scale_by_sigma: bool


def read_settings(settings: Mapping[str, Any] | str | None) -> tuple[Architecture, Diffusion]:
    """The architecture and the diffusion of a configuration.

    Args:
        settings: a dictionary, nested {"model": {"nf": 128}} or dotted {"model.nf": 128}; the path
            of a JSON file that holds one; or the name of a published configuration.
    Raises:
        ValueError: no settings, an unknown name, missing or unknown settings, or values that no
            published network has.
    """
    if settings is None:
        raise ValueError(
            "a score_sde_pytorch checkpoint does not say which network and which diffusion it is "
            f"of: pass settings, its configuration as a dictionary or one of {_listed()}"
        )
    if isinstance(settings, str):
        if settings in PUBLISHED:
            settings = PUBLISHED[settings]
        elif settings.endswith(".json"):
            path = Path(settings)
            settings = read_json(path.parent, path.name)
        else:
            close = difflib.get_close_matches(settings, PUBLISHED, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"unknown settings {settings!r:.80}{hint} Known: {_listed()}")
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a dictionary or a name, got {type(settings).__name__}")
    reader = _Reader(settings)
    found = _architecture(reader), _diffusion(reader)
    reader.finish()
    _check_pair(*found)
    return found


def _listed() -> str:
    return ", ".join(PUBLISHED)


class _Reader:
    """Typed access to a configuration; all that is missing or wrong is reported at once."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        for key, value in settings.items():
            section = (
                {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {}
            )
            self.values |= section or {str(key): value}
        self.used: set[str] = set(_UNUSED)
        self.problems: list[str] = []

    def get(self, key: str, kinds: type | tuple[type, ...], what: str, fallback: Any) -> Any:
        self.used.add(key)
        if key not in self.values:
            self.problems.append(f"{key} is missing")
            return fallback
        value = self.values[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            self.problems.append(f"{key} must be {what}, got {value!r:.60}")
            return fallback
        return value

    def flag(self, key: str) -> bool:
        return bool(self.get(key, bool, "true or false", False))

    def count(self, key: str, limit: int = _LIMIT) -> int:
        value = self.get(key, int, "a whole number", 1)
        if not 1 <= value <= limit:
            self.problems.append(f"{key} must be from 1 to {limit}, got {value}")
            return 1
        return int(value)

    def number(self, key: str) -> float:
        value = float(self.get(key, (int, float), "a number", 1.0))
        if not 0 < value < 1e12:
            self.problems.append(f"{key} must be positive, got {value}")
        return value

    def numbers(self, key: str, kinds: type | tuple[type, ...], limit: int) -> tuple[Any, ...]:
        values: tuple[Any, ...] = tuple(self.get(key, (list, tuple), "a list", ()))
        right = [v for v in values if isinstance(v, kinds) and not isinstance(v, bool)]
        fit = len(right) == len(values) <= limit and all(0 < v <= _LIMIT for v in values)
        if not fit:
            self.problems.append(
                f"{key} must hold at most {limit} positive numbers, got {values!r:.60}"
            )
            return ()
        return values

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        value = str(self.get(key, str, "a name", known[0])).lower()
        if value not in known:
            self.problems.append(f"{key} must be one of {', '.join(known)}, got {value!r:.60}")
        return value

    def fixed(self, key: str, known: object) -> None:
        """A setting with one value in all published networks; others are not supported."""
        self.used.add(key)
        value = self.values.get(key, known)
        value = value.lower() if isinstance(value, str) else value
        if value != known:
            self.problems.append(f"{key} {value!r:.60} is not supported, only {known!r}")

    def finish(self) -> None:
        unknown = [k for k in self.values if k.startswith("model.") and k not in self.used]
        self.problems += [f"{key} is unknown" for key in unknown]
        if self.problems:
            more = len(self.problems) - 8
            raise ValueError(
                f"settings: {'; '.join(self.problems[:8])}"
                + (f"; and {more} more" if more > 0 else "")
            )


# Of the training alone, or of samplers.
_UNUSED = ("model.ema_rate", "model.dropout", "model.init_scale", "model.fourier_scale")


def _architecture(reader: _Reader) -> Architecture:
    for key, value in _FIXED.items():
        reader.fixed(key, value)
    name = reader.choice("model.name", ("ncsnpp", "ddpm"))
    common: dict[str, Any] = {
        "name": name,
        "image_size": reader.count("data.image_size"),
        "num_channels": reader.count("data.num_channels"),
        "centered": reader.flag("data.centered"),
        "nf": reader.count("model.nf"),
        "ch_mult": reader.numbers("model.ch_mult", int, 16) or (1,),
        "num_res_blocks": reader.count("model.num_res_blocks", 64),
        "attn_resolutions": reader.numbers("model.attn_resolutions", int, 64),
        "resamp_with_conv": reader.flag("model.resamp_with_conv"),
    }
    if name == "ddpm":
        reader.used |= _OF_NCSNPP
        return Architecture(
            **common,
            conditional=True,
            fir_kernel=None,
            skip_rescale=False,
            resblock_type="ddpm",
            progressive="none",
            progressive_input="none",
            embedding_type="positional",
        )
    kernel = None
    if reader.flag("model.fir"):
        kernel = reader.numbers("model.fir_kernel", (int, float), 64)
        if len(kernel) < 2:
            reader.problems.append(f"model.fir_kernel needs two values or more, got {kernel}")
    reader.used.add("model.fir_kernel")
    return Architecture(
        **common,
        conditional=reader.flag("model.conditional"),
        fir_kernel=kernel,
        skip_rescale=reader.flag("model.skip_rescale"),
        resblock_type=reader.choice("model.resblock_type", ("biggan", "ddpm")),
        progressive=reader.choice("model.progressive", ("none", "output_skip")),
        progressive_input=reader.choice(
            "model.progressive_input", ("none", "input_skip", "residual")
        ),
        embedding_type=reader.choice("model.embedding_type", ("fourier", "positional")),
    )


def _diffusion(reader: _Reader) -> Diffusion:
    sde = reader.choice("training.sde", ("vesde", "vpsde", "subvpsde"))
    end = "sigma" if sde == "vesde" else "beta"
    low, high = reader.number(f"model.{end}_min"), reader.number(f"model.{end}_max")
    if not low < high and not reader.problems:
        reader.problems.append(f"model.{end}_min {low} is not below model.{end}_max {high}")
    continuous = reader.flag("training.continuous")
    reader.used |= {f"model.{k}_{m}" for k in ("sigma", "beta") for m in ("min", "max")}
    reader.used.add("model.num_scales")
    counted = not continuous and sde != "subvpsde"
    return Diffusion(
        sde=sde,
        continuous=not counted,
        low=low,
        high=high,
        num_scales=reader.count("model.num_scales") if counted else 0,
        scale_by_sigma=reader.flag("model.scale_by_sigma"),
    )


def _check_pair(a: Architecture, diffusion: Diffusion) -> None:
    """Refuse combinations that the published code cannot run or that have no meaning."""
    if a.image_size % 2 ** (len(a.ch_mult) - 1):
        raise ValueError(
            f"settings: data.image_size {a.image_size} cannot be halved {len(a.ch_mult) - 1} times"
        )
    if a.nf < 4 or a.nf % 2:
        raise ValueError(f"settings: model.nf must be even and at least 4, got {a.nf}")
    if a.fir_kernel and a.resblock_type == "ddpm" and a.resamp_with_conv:
        raise ValueError(
            "settings: model.resblock_type 'ddpm' with model.fir and model.resamp_with_conv is not "
            "supported: the published code cannot run it"
        )
    fourier, variance_exploding = a.embedding_type == "fourier", diffusion.sde == "vesde"
    if fourier and not diffusion.continuous:
        raise ValueError("settings: model.embedding_type 'fourier' needs training.continuous")
    if diffusion.scale_by_sigma and not variance_exploding:
        raise ValueError("settings: model.scale_by_sigma needs training.sde 'vesde'")
    if diffusion.scale_by_sigma and diffusion.continuous and not fourier:
        raise ValueError(
            "settings: model.scale_by_sigma with training.continuous needs model.embedding_type "
            "'fourier': positions are no noise levels"
        )


_FIXED = {
    "model.normalization": "groupnorm",
    "model.nonlinearity": "swish",
    "model.attention_type": "ddpm",
    "model.conv_size": 3,
    "model.progressive_combine": "sum",
}
_OF_NCSNPP = {
    f"model.{key}"
    for key in (
        "conditional",
        "fir",
        "fir_kernel",
        "skip_rescale",
        "resblock_type",
        "progressive",
        "progressive_input",
        "embedding_type",
    )
}
