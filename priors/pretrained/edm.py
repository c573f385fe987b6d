"""NVlabs' EDM checkpoints as priors: SongUNet and DhariwalUNet under four preconditioners.

A file is a pickle as published (see `edm_pickle`), or the state dict of the preconditioner or of
its network in safetensors or a torch file, which needs `settings`. Classes are told one-hot;
augmentation is none.

Paper: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..network import Negated, NetworkPrior
from .edm_networks import Layout
from .edm_preconditioning import Preconditioning, preconditioning
from .edm_settings import settings_of
from .formats import Options
from .stated import checked_label, image_shape
from .weights import fill

NAME = "EDM"

_PREFIX = "model."


def recognises(content: dict[str, Any]) -> bool:
    """Whether this is what `edm_pickle` reads, or names of an EDM network's tensors."""
    names = content["state_dict"] if _from_pickle(content) else content
    bare = {name.removeprefix(_PREFIX) for name in names}
    ends = ("_in0.norm0.weight", "_in1.norm0.weight")
    return "map_layer0.weight" in bare and all(
        any(name.startswith("dec.") and name.endswith(end) for name in bare) for end in ends
    )


def build(
    content: dict[str, Any], settings: dict[str, Any] | str | None, options: Options
) -> NetworkPrior:
    """The prior of a checkpoint; settings: a published model's name or EDM's keyword arguments.

    Raises:
        ValueError: no preconditioner named; settings that are unknown or disagree with the file;
            tensors missing, unexpected or of other shapes; no class, or one that the network does
            not have.
    """
    kept: dict[str, Any] = {}
    state = content
    if _from_pickle(content):
        state = content["state_dict"]
        kept = {**content["init_kwargs"], "class_name": content["class_name"]}
    stated = settings_of(kept, settings, options.source)
    table = state.get("u")
    tensors = {n.removeprefix(_PREFIX): v for n, v in state.items() if n != "u"}
    layout = Layout(tensors, options.source)
    _check_settings(stated, layout, options.source)
    label = options.class_label
    if label == "null" and layout.classes is not None and stated.get("label_dropout"):
        label = None
    else:
        label = checked_label(label, layout.classes)
    law = preconditioning(stated)
    _check_outputs(law, layout, table, stated["class_name"], options.source)
    shape = image_shape(layout.in_channels, layout.size, len(layout.sides), options)
    network, fitting = layout.network(label)
    fill(network, fitting, source=options.source, device=options.device, dtype=options.dtype)
    return options.prior(
        Negated(network) if law.minus else network,
        law.parametrization,
        shape,
        sigma_range=law.sigma_range,
        time=law.time,
        schedule=law.schedule,
        sigma_data=law.sigma_data,
    )


def _from_pickle(content: dict[str, Any]) -> bool:
    return set(content) == {"class_name", "init_kwargs", "state_dict"}


def _check_settings(stated: dict[str, Any], layout: Layout, source: str) -> None:
    """Refuse settings that say something else than the tensors."""
    told = layout.told()
    wrong = []
    for key, found in told.items():
        said = stated.get(key)
        if key == "attn_resolutions" and said is not None:
            said = set(said) & set(layout.sides)
        if said is not None and said != found:
            wrong.append(f"{key} is {said}, the tensors say {found}")
    taps = stated.get("resample_filter")
    if taps is not None and layout.is_song:
        row = torch.tensor(taps, dtype=torch.float64)
        row = row / row.sum()
        for name, value in layout.tensors.items():
            if name.endswith("resample_filter") and not _close(value, row.outer(row)[None, None]):
                wrong.append(f"resample_filter is {taps}, {name} says otherwise")
                break
    if wrong:
        raise ValueError(f"{source} is not the model that settings describe: {'; '.join(wrong)}")


def _check_outputs(
    law: Preconditioning, layout: Layout, table: Tensor | None, kind: str, source: str
) -> None:
    """Refuse a network that gives other channels than its preconditioner takes, or other levels."""
    if layout.out_channels != layout.in_channels * (2 if law.doubled else 1):
        raise ValueError(
            f"{source}: under {kind} a network gives "
            f"{'twice as many channels as' if law.doubled else 'the channels that'} it takes; got "
            f"{layout.out_channels} for {layout.in_channels}"
        )
    if table is None:
        return
    if law.table is None:
        raise ValueError(f"{source} has a table u of noise levels, which {kind} has not")
    if not _close(table[:-1], law.table, 0.01):
        raise ValueError(f"{source}: its table u of noise levels is not that of M, C_1 and C_2")


def _close(value: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return value.shape == expected.shape and torch.allclose(
        value.double(), expected, rtol=tolerance, atol=0
    )
