"""The prior of a diffusers pipeline folder whose network is a UNet2DModel.

A folder holds a network, and a scheduler that says what the network's output means; the table of
`diffusers_schedulers` states which denoiser each becomes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from ..network import NetworkPrior, SpaceToDepth
from ..ranges import pair, rescaled
from .diffusers_folder import read_folder
from .diffusers_network import UNet, class_index, empty_unet, event_shape_of, fill_unet
from .diffusers_schedulers import noise_law
from .formats import Options
from .laws import stated_law


def build_pipeline(root: Path, options: Options, max_parameters: int) -> NetworkPrior:
    """The prior of the folder root, as `load` was asked for it."""
    folder = read_folder(root)
    facts, patch = folder.facts, folder.facts["patch"]
    law = stated_law(facts) or noise_law(folder.scheduler_name, folder.scheduler)
    unet = empty_unet(folder.unet)
    config = dict(unet.config)
    law.check_embedding(config["time_embedding_type"])
    label = class_index(config, options.class_label)
    shape = event_shape_of(config, facts, options.event_shape)
    network_range = pair("network_range", facts.get("network_range", law.network_range))
    folder.check_weights()
    fill_unet(unet, folder.weights, options, max_parameters)
    network: nn.Module = UNet(unet, label)
    if patch > 1:
        network = SpaceToDepth(network, patch)

    # prior.json states its levels in its own data units; the scheduler in network units.
    own_range = pair("data_range", facts.get("data_range", network_range))
    levels = law.sigma_range
    if "sigma_range" in facts:
        stated = pair("sigma_range", facts["sigma_range"], positive=True)
        levels = rescaled(stated, own_range, network_range)
    return replace(options, data_range=options.data_range or own_range).prior(
        network,
        law.parametrization,
        shape,
        sigma_range=levels,
        network_range=network_range,
        schedule=law.schedule,
        time=law.time,
        sigma_data=law.sigma_data,
        edm_sign=law.edm_sign,
        any_size=facts["any_size"],
        stride=facts["stride"],
    )
