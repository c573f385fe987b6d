"""Magnetic resonance imaging: k-space on a grid and off it, coils, masks, trajectories."""

from .cartesian import MRI, MultiCoilMRI
from .classical import cg_sense
from .coils import CoilSensitivities, noise_covariance, prewhiten, root_sum_of_squares
from .espirit import CoilMaps, espirit
from .fourier import CenteredFourier, to_image, to_kspace
from .masks import (
    acceleration,
    equispaced_lines,
    gaussian_lines,
    poisson_disc_mask,
    radial_mask,
    random_lines,
)
from .nufft import Nufft
from .real_images import ChannelsToComplex, RealToComplex
from .trajectories import interferometer_trajectory, radial_trajectory, spiral_trajectory

__all__ = [
    "MRI",
    "CenteredFourier",
    "ChannelsToComplex",
    "CoilMaps",
    "CoilSensitivities",
    "MultiCoilMRI",
    "Nufft",
    "RealToComplex",
    "acceleration",
    "cg_sense",
    "equispaced_lines",
    "espirit",
    "gaussian_lines",
    "interferometer_trajectory",
    "noise_covariance",
    "poisson_disc_mask",
    "prewhiten",
    "radial_mask",
    "radial_trajectory",
    "random_lines",
    "root_sum_of_squares",
    "spiral_trajectory",
    "to_image",
    "to_kspace",
]
