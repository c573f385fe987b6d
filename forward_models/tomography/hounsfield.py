"""Hounsfield units and linear attenuation, for images and for sinograms."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_positive
from ..linear import LinearOperator

# Water at an effective energy of about 70 keV, per mm: between 0.02059 at 60 keV and 0.01837 at
# 80 keV, https://physics.nist.gov/PhysRefData/XrayMassCoef/ComTab/water.html
WATER = 0.0193


def hounsfield_to_attenuation(hu: Tensor, mu_water: float = WATER) -> Tensor:
    """mu = mu_water (1 + HU / 1000), in 1/mm, any shape; air (-1000 HU) becomes 0.

    Paper: Hounsfield, Computerized transverse axial scanning (tomography),
    https://doi.org/10.1259/0007-1285-46-552-1016
    """
    return check_positive("mu_water", mu_water) * (1 + hu / 1000)


def attenuation_to_hounsfield(mu: Tensor, mu_water: float = WATER) -> Tensor:
    """HU = 1000 (mu / mu_water - 1), any shape; the inverse of `hounsfield_to_attenuation`."""
    return 1000 * (mu / check_positive("mu_water", mu_water) - 1)


def hounsfield_sinogram(
    operator: LinearOperator, sinogram: Tensor, mu_water: float = WATER
) -> tuple[Tensor, float]:
    """The data that are linear in a Hounsfield image, from measured line integrals of attenuation.

    p = A mu is affine in HU, so subtract what water everywhere would give and change the unit:

        y = (p - mu_water A 1) * 1000 / mu_water = A(HU),    in HU * mm.

    Exact. "Everywhere" is the whole image grid: outside it, as for any A, there is air.

    Args:
        operator: A, any beam, with lengths in mm.
        sinogram: p = -log(I / I0), (B, *measurement), without unit.
        mu_water: attenuation of water in 1/mm.

    Returns:
        y, of the same shape, and the factor 1000 / mu_water in HU * mm: a standard deviation of the
        noise in p becomes this factor times itself in y.

    Raises:
        TypeError: the operator is no LinearOperator.
        ValueError: an attenuation that is not positive, or an operator of no fixed image shape.
    """
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"operator must be a LinearOperator, got {type(operator).__name__}")
    factor = 1000 / check_positive("mu_water", mu_water)
    if operator.event_shape is None:
        raise ValueError("the operator accepts images of any size: water would have no bounds")
    ones = sinogram.new_ones(1, *operator.event_shape)
    return (sinogram - mu_water * operator.apply(ones)) * factor, factor
