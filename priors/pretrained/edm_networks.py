"""EDM's two networks from the names and shapes of their tensors.

SongUNet's tensors fit `SongUNet` as they are named. DhariwalUNet is the U-Net of ADM under other
names: its encoder's blocks follow each other as ADM's input stages, a block that doubles the size
ends the decoder's stage before it, a class's embedding is a column, and the rows of q, k and v go
by head, channel and part in place of head, part and channel.

Augmentation, which was told to the network in training only, adds nothing: its tensor is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .networks.adm_unet import AdmArchitecture, AdmUNet
from .networks.song_unet import SongArchitecture, SongUNet

_HEAD = 64
_RES = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
    "skip": "skip_connection",
}
_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}


class Layout:
    """The levels of a checkpoint's tensors, and what their shapes tell of its network.

    Args:
        tensors: without the preconditioner's own and without "model." before their names.
        source: what to call the file in errors.
    """

    def __init__(self, tensors: dict[str, Tensor], source: str) -> None:
        self.tensors, self.source = dict(tensors), source
        first = next(n for n in tensors if n.startswith("enc.") and n.endswith("_conv.weight"))
        self.size = int(first[4:].partition("x")[0])
        sides = [self.size]
        while self.has(f"enc.{sides[-1] // 2}x{sides[-1] // 2}_down.norm0.weight"):
            sides.append(sides[-1] // 2)
        self.sides = sides
        self.names = [f"{side}x{side}_" for side in sides]
        self.blocks = 0
        while self.has(f"enc.{self.names[0]}block{self.blocks}.norm0.weight"):
            self.blocks += 1
        if not self.blocks:
            raise ValueError(f"{source} does not fit an EDM network: no enc.{self.names[0]}block0")
        self.channels = tuple(self.dim(f"enc.{name}block0.conv1.weight", 0) for name in self.names)
        self.attention = tuple(self.has(f"enc.{n}block0.qkv.weight") for n in self.names)
        self.width = self.dim(first, 0)
        self.in_channels = self.dim(first, 1)
        self.is_song = not self.has("out_conv.weight")
        last = f"dec.{self.names[0]}aux_conv.weight" if self.is_song else "out_conv.weight"
        self.out_channels = self.dim(last, 0)
        self.classes = self.dim("map_label.weight", 1) if self.has("map_label.weight") else None
        self.noise_width = self.dim("map_layer0.weight", 1)
        self.embedding = self.dim("map_layer0.weight", 0)
        augment = self.tensors.pop("map_augment.weight", None)
        if augment is not None and (augment.ndim != 2 or len(augment) != self.noise_width):
            raise ValueError(
                f"{source} does not fit an EDM network: map_augment.weight has shape "
                f"{tuple(augment.shape)}, expected ({self.noise_width}, n)"
            )
        self.augment = 0 if augment is None else int(augment.shape[1])

    def has(self, name: str) -> bool:
        return name in self.tensors

    def dim(self, name: str, axis: int) -> int:
        value = self.tensors.get(name)
        if value is None or value.ndim <= axis:
            raise ValueError(f"{self.source} does not fit an EDM network: no tensor {name} in form")
        return int(value.shape[axis])

    def told(self) -> dict[str, Any]:
        """The settings that the tensors tell, by EDM's words."""
        told: dict[str, Any] = {
            "img_resolution": self.size,
            "img_channels": self.in_channels,
            "label_dim": self.classes or 0,
            "augment_dim": self.augment,
            "num_blocks": self.blocks,
            "attn_resolutions": {s for s, a in zip(self.sides, self.attention, strict=True) if a},
            "model_type": "SongUNet" if self.is_song else "DhariwalUNet",
        }
        if not self.is_song:
            width = self.noise_width
            told |= {"model_channels": width, "channel_mult_emb": self.embedding / width}
            return told | {"channel_mult": [n / width for n in self.channels]}
        width, encoder, decoder = self.width, self._encoder(), self._decoder()
        return told | {
            "model_channels": width,
            "channel_mult": [n / width for n in self.channels],
            "channel_mult_emb": self.embedding / width,
            "channel_mult_noise": self.noise_width / width,
            "embedding_type": "fourier" if self.has("map_noise.freqs") else "positional",
            "encoder_type": encoder,
            "decoder_type": decoder,
        }

    def _encoder(self) -> str:
        for kind, name in (("residual", "aux_residual"), ("skip", "aux_skip")):
            if len(self.names) > 1 and self.has(f"enc.{self.names[1]}{name}.weight"):
                return kind
        return "standard"

    def _decoder(self) -> str:
        coarse = len(self.names) > 1 and self.has(f"dec.{self.names[1]}aux_conv.weight")
        return "skip" if coarse else "standard"

    def taps(self) -> int:
        if len(self.names) == 1:
            return 2
        taps = self.dim(f"enc.{self.names[1]}down.conv0.resample_filter", 3)
        if taps % 2:
            raise ValueError(f"{self.source}: resample filters must be of even length, got {taps}")
        return taps

    def network(self, label: int | None) -> tuple[nn.Module, dict[str, Tensor]]:
        """The network without memory, and its tensors."""
        if self.noise_width % 2 or self.noise_width < 4:
            raise ValueError(f"{self.source}: the time's embedding has {self.noise_width} channels")
        with torch.device("meta"):
            return self._song(label) if self.is_song else self._adm(label)

    def _song(self, label: int | None) -> tuple[nn.Module, dict[str, Tensor]]:
        made_of = SongArchitecture(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            size=self.size,
            width=self.width,
            channels=self.channels,
            blocks=self.blocks,
            attention=self.attention,
            noise_width=self.noise_width,
            embedding=self.embedding,
            classes=self.classes,
            fourier=self.has("map_noise.freqs"),
            encoder=self._encoder(),
            decoder=self._decoder(),
            taps=self.taps(),
        )
        return SongUNet(made_of, label), self.tensors

    def _adm(self, label: int | None) -> tuple[nn.Module, dict[str, Tensor]]:
        attending = {n for n, a in zip(self.channels, self.attention, strict=True) if a}
        uneven = sorted(n for n in {*attending, self.channels[-1]} if n % _HEAD)
        if uneven:
            raise ValueError(f"{self.source}: {uneven} channels cannot be heads of {_HEAD}")
        made_of = AdmArchitecture(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            width=self.noise_width,
            channels=self.channels,
            blocks=self.blocks,
            attention=self.attention,
            classes=self.classes,
            scale_shift=True,
            resblock_updown=True,
            split_first=False,
            head_channels=_HEAD,
            group_size=4,
        )
        names = self._adm_names()
        tensors = {}
        for name, value in self.tensors.items():
            layer, _, end = name.rpartition(".")
            if end == "resample_filter":
                if value.shape != (1, 1, 2, 2) or not bool((value == 0.25).all()):
                    raise ValueError(f"{self.source}: {name} is not the mean of 2 x 2")
                continue
            if name == "map_label.weight":
                tensors["label_emb.weight"] = value.T
                continue
            if layer.endswith(".qkv") and value.shape[0] % (3 * _HEAD) == 0:
                value = value.unflatten(0, (-1, _HEAD, 3)).transpose(1, 2).flatten(0, 2)
            if layer.endswith((".qkv", ".proj")) and value.ndim == 4:
                value = value.flatten(2)
            tensors[f"{names.get(layer, layer)}.{end}"] = value
        return AdmUNet(made_of, label), tensors

    def _adm_names(self) -> dict[str, str]:
        """ADM's name of every layer by EDM's."""
        names = {
            "map_layer0": "time_embed.0",
            "map_layer1": "time_embed.2",
            f"enc.{self.names[0]}conv": "input_blocks.0.0",
            "out_norm": "out.0",
            "out_conv": "out.2",
        }

        def add(block: str, stage: str, place: int = 0) -> None:
            names.update({f"{block}.{a}": f"{stage}.{place}.{b}" for a, b in _RES.items()})
            names.update(
                {f"{block}.{a}": f"{stage}.{place + 1}.{b}" for a, b in _ATTENTION.items()}
            )

        stage = 0
        for level, name in enumerate(self.names):
            for block in ["down"] * bool(level) + [f"block{i}" for i in range(self.blocks)]:
                stage += 1
                add(f"enc.{name}{block}", f"input_blocks.{stage}")
        add(f"dec.{self.names[-1]}in0", "middle_block")
        add(f"dec.{self.names[-1]}in1", "middle_block", 2)
        stage = -1
        for level in reversed(range(len(self.names))):
            if stage >= 0:
                place = 2 if self.attention[level + 1] else 1
                add(f"dec.{self.names[level]}up", f"output_blocks.{stage}", place)
            for i in range(self.blocks + 1):
                stage += 1
                add(f"dec.{self.names[level]}block{i}", f"output_blocks.{stage}")
        return names
