"""Cartesian magnetic resonance imaging: samples of k-space on the image's own grid."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_shape, check_tensor
from ..linear import SVD, LinearOperator
from .coils import check_maps
from .fourier import SampledFourierSVD, to_image, to_kspace


def check_mask(mask: Tensor) -> Tensor:
    """The mask as bool if it holds nothing but zeros and ones, (H, W) or (W,), else raise."""
    check_tensor("mask", mask)
    if mask.ndim not in (1, 2) or 0 in mask.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected (H, W), or (W,) for whole lines; pass "
            "one plane, e.g. mask[0]"
        )
    if mask.is_complex():
        raise TypeError(f"mask has dtype {mask.dtype}, expected bool; convert it with mask.bool()")
    sampled = mask.detach().bool()
    if not torch.equal(sampled.to(mask.dtype), mask.detach()):
        raise ValueError(
            "mask has values other than 0 and 1; k-space is sampled or not: pass a bool mask, and "
            "weigh samples through the sigma of the noise model"
        )
    if not bool(sampled.any()):
        raise ValueError("mask is zero everywhere: nothing is measured")
    return sampled


def _unshifted(mask: Tensor) -> Constant:
    """m in the order of a transform with its origin at index 0."""
    return Constant(torch.fft.ifftshift(mask.to(torch.float64), tuple(range(mask.ndim))))


def _convolve(x: Tensor, unshifted: Constant) -> Tensor:
    """F^H m F x: a circular convolution, which no shift of axes changes.

    A mask of whole lines acts along the last axis alone.
    """
    weight = unshifted.like(x)
    axes = tuple(range(-weight.ndim, 0))
    return torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * weight, dim=axes)


@final
class MRI(LinearOperator):
    """y = m * F x: single-coil Cartesian k-space, zero where it is not sampled.

    F is the centred unitary transform of `CenteredFourier`; x and y are complex, (1, H, W). Only
    entries with m = 1 are data (`measured`). The adjoint is the zero-filled reconstruction
    F^H (m * y). A A^H = diag(m): `solve` with C = c I is one division,
    and the singular values are 1. Cost: one fast Fourier transform.

    Images that a prior knows as real, or as two real channels, come in through
    `MRI(mask) @ RealToComplex()` or `MRI(mask) @ ChannelsToComplex()`.

    Args:
        mask: m, (H, W), bool or 0 and 1; or (W,), which keeps whole columns k-space[:, j], the
            lines of a scan whose readout runs along H.
        image_shape: (H, W), which `svd` needs if the mask is (W,).

    Raises:
        TypeError: the mask is no tensor or complex.
        ValueError: other values than 0 and 1, nothing sampled, or shapes that do not fit.

    Paper: Lustig, Donoho and Pauly, Sparse MRI: the application of compressed sensing for rapid MR
    imaging, 2007, https://doi.org/10.1002/mrm.21391
    """

    event_ndim = 3
    measurement_ndim = 3
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, mask: Tensor, image_shape: Shape | None = None) -> None:
        self._mask = check_mask(mask).clone()
        self._weight = Constant(self._mask.to(torch.float64))
        self._unshifted = _unshifted(self._mask)
        shape = (
            tuple(mask.shape) if image_shape is None else check_shape("image_shape", image_shape)
        )
        if image_shape is not None and (len(shape) != 2 or shape[-mask.ndim :] != mask.shape):
            raise ValueError(
                f"image_shape is {shape}, expected (H, W) of the mask, {tuple(mask.shape)}"
            )
        if len(shape) == 2:
            self.event_shape = self.measurement_shape = (1, *shape)
        self._svd: SVD | None = None

    @property
    def mask(self) -> Tensor:
        """m, bool, (H, W) or (W,)."""
        return self._mask

    def output_shape(self, event_shape: Shape) -> Shape:
        if event_shape[0] != 1 or event_shape[-self.mask.ndim :] != self.mask.shape:
            raise ValueError(
                f"the image is {event_shape}, expected one channel and the size of the mask, "
                f"{tuple(self.mask.shape)}; several coils are the business of MultiCoilMRI"
            )
        return event_shape

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.output_shape(measurement_shape)

    def _apply(self, x: Tensor) -> Tensor:
        return to_kspace(x) * self._weight.like(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return to_image(y * self._weight.like(y))

    def _normal(self, x: Tensor) -> Tensor:
        return _convolve(x, self._unshifted)

    def _gram_diagonal(self, y: Tensor) -> Tensor:
        return self._weight.like(y)

    @property
    def measured(self) -> Tensor:
        return self.mask

    @property
    def svd(self) -> SVD | None:
        """One singular value, 1, per sample; None while the height of the image is open."""
        if self._svd is None and self.event_shape is not None:
            self._svd = SampledFourierSVD(self.mask.expand(self.event_shape))
        return self._svd


@final
class MultiCoilMRI(LinearOperator):
    """y_c = m * F (S_c x): Cartesian k-space of C receive coils, (1, H, W) to (C, H, W).

    S_c is the complex sensitivity of coil c. The maps may have any scale, constant or not: where
    sum_c |S_c|^2 = 1, A of a fully sampled mask preserves norms. Only entries with m = 1 are data.
    There is no closed form: `solve` uses conjugate gradients. A^H A skips the shifts of the
    transform and, for a mask of whole lines, the transform along them. Cost: C fast Fourier
    transforms.

    Args:
        mask: m, (H, W) or (W,), as for `MRI`; the same for all coils.
        maps: S, (C, H, W), complex; see `espirit`.

    Raises:
        TypeError: the mask is complex, or the maps are not.
        ValueError: other mask values than 0 and 1, NaN in the maps, or shapes that do not fit.

    Paper: Pruessmann et al., SENSE: sensitivity encoding for fast MRI,
    https://doi.org/10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S
    """

    event_ndim = 3
    measurement_ndim = 3
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, mask: Tensor, maps: Tensor) -> None:
        self._mask = check_mask(mask).clone()
        self._weight = Constant(self._mask.to(torch.float64))
        self._unshifted = _unshifted(self._mask)
        self._maps = Constant(check_maps(maps))
        if maps.shape[-mask.ndim :] != mask.shape:
            raise ValueError(
                f"the maps are {tuple(maps.shape)}, the mask {tuple(mask.shape)}: they must agree "
                "in height and width"
            )
        self.event_shape = (1, *maps.shape[1:])
        self.measurement_shape = tuple(maps.shape)

    @property
    def mask(self) -> Tensor:
        """m, bool, (H, W) or (W,)."""
        return self._mask

    @property
    def maps(self) -> Tensor:
        """S, complex128, (C, H, W)."""
        return self._maps.value

    def _apply(self, x: Tensor) -> Tensor:
        return to_kspace(self._maps.like(x) * x) * self._weight.like(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        images = to_image(y * self._weight.like(y))
        return (self._maps.like(y).conj() * images).sum(1, keepdim=True)

    def _normal(self, x: Tensor) -> Tensor:
        maps = self._maps.like(x)
        return (maps.conj() * _convolve(maps * x, self._unshifted)).sum(1, keepdim=True)

    @property
    def measured(self) -> Tensor:
        return self.mask
