"""Latent diffusion: a prior over the latents of an autoencoder, and the way to images and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .prior import CovarianceProduct, Prior
from .ranges import pair


@final
class LatentPrior(Prior):
    """Images x = decode(z) whose latents z follow a prior, seen at every noise level of z.

        x = range(decoder(latent_mean + latent_std z)),      z ~ prior,

    where `range` maps what the decoder spans to what the user's images span. `denoise`, `score`
    and `covariance` are those of the inner prior, over latents (B, *event) with sigma in its units:
    as exact as it is, one call of its network and none of the autoencoder. `inverse.condition`
    takes forward models of images and lets them follow `decode`.

    Args:
        prior: of latents.
        autoencoder: with decode(z) and, for `encode`, encode(x), each giving a tensor or what
            diffusers' AutoencoderKL and VQModel give; called with its own raw latents and range,
            in the dtype of its weights. It is used as it is; `load` gives it in evaluation mode.
        image_shape: shape of one image; by default from the autoencoder's config where it is one of
            diffusers', else from one trial of `decode`, which refuses another.
        image_range: what the user's images span; by default autoencoder_range.
        autoencoder_range: what the autoencoder's images span.
        latent_mean, latent_std: what turns z into raw latents, numbers or one value a channel; by
            default from the autoencoder's config (shift_factor or latents_mean; latents_std or 1,
            over scaling_factor) where it has one, else 0 and 1.

    Attributes:
        image_shape, image_range: of the images; event_shape and data_range are those of latents.

    Raises:
        TypeError: no Prior, or an autoencoder without decode.
        ValueError: a latent_std that is not positive, a range that is none, shapes that disagree:
            latents that the autoencoder does not take, images where latents are expected.

    Paper: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022,
    https://arxiv.org/abs/2112.10752
    """

    def __init__(
        self,
        prior: Prior,
        autoencoder: Any,
        *,
        image_shape: tuple[int, ...] | None = None,
        image_range: tuple[float, float] | None = None,
        autoencoder_range: tuple[float, float] = (-1.0, 1.0),
        latent_mean: float | Tensor | None = None,
        latent_std: float | Tensor | None = None,
    ) -> None:
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a priors.Prior, got {type(prior).__name__}")
        if isinstance(prior, LatentPrior):
            raise TypeError("prior must be one of latents, got a LatentPrior: one of images")
        if not callable(getattr(autoencoder, "decode", None)):
            raise TypeError(
                f"autoencoder must have decode(z), {type(autoencoder).__name__} has not"
            )
        self.prior, self.autoencoder = prior, autoencoder
        self.event_shape, self.data_range = prior.event_shape, prior.data_range
        self.sigma_range, self.scale = prior.sigma_range, prior.scale
        self.exact_covariance = prior.exact_covariance
        self._check_channels()
        self._own_range = pair("autoencoder_range", autoencoder_range)
        self.image_range = (
            self._own_range if image_range is None else pair("image_range", image_range)
        )
        mean, std = _standardisation(getattr(autoencoder, "config", None) or {})
        self.latent_mean = self._of_latents(
            "latent_mean", mean if latent_mean is None else latent_mean
        )
        self.latent_std = self._of_latents("latent_std", std if latent_std is None else latent_std)
        if not bool((self.latent_std > 0).all()):
            raise ValueError(
                f"latent_std must be positive, got {self.latent_std.flatten().tolist()}"
            )
        self.image_shape = self._image_shape(image_shape)

    def check_input(self, x: Tensor) -> None:
        """Refuse anything but a floating batch of latents (B, *event) with B >= 1."""
        shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else None
        if shape == self.image_shape and shape != tuple(self.event_shape):
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.event_shape))}) of latents, got "
                f"images {tuple(x.shape)}: noise levels and densities of a LatentPrior are of "
                "latents. Pass prior.encode(image)[0]; a density there is not one of the image"
            )
        super().check_input(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, *image_shape) in image_range of latents (B, *event); one decoder call.

        Differentiable, twice and forward too where the autoencoder's layers are.
        """
        self.check_input(z)
        mean, std = self.latent_mean.to(z), self.latent_std.to(z)
        x = self._call(self.autoencoder.decode, mean + std * z)
        x = x if isinstance(x, Tensor) else x.sample
        if tuple(x.shape) != (len(z), *self.image_shape):
            raise ValueError(
                f"the autoencoder decoded latents {tuple(z.shape)} to images {tuple(x.shape)}, "
                f"expected {(len(z), *self.image_shape)}"
            )
        return _mapped(x.to(z.dtype), self._own_range, self.image_range)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mode, standard deviation), each (B, *event), of the latents of images x.

        The encoder's Gaussian q(z | x), in the units of the latent prior; a standard deviation of 0
        where the encoder gives one answer. x: (B, *image_shape) in image_range; one encoder call.
        """
        if not callable(getattr(self.autoencoder, "encode", None)):
            raise TypeError(f"{type(self.autoencoder).__name__} has no encode")
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"x must be a real floating tensor, got {getattr(x, 'dtype', type(x))}")
        if x.ndim < 1 or len(x) < 1 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"x must be images (B, {', '.join(map(str, self.image_shape))}), got "
                f"{tuple(x.shape)}"
            )
        out = self._call(self.autoencoder.encode, _mapped(x, self.image_range, self._own_range))
        if hasattr(out, "latent_dist"):
            raw, spread = out.latent_dist.mode(), out.latent_dist.std
        else:
            raw = out if isinstance(out, Tensor) else out.latents
            spread = torch.zeros_like(raw)
        if tuple(raw.shape[1:]) != self.event_shape:
            raise ValueError(
                f"the autoencoder encoded to {tuple(raw.shape)}, the prior is of latents "
                f"{self.event_shape}"
            )
        mean, std = self.latent_mean.to(x), self.latent_std.to(x)
        return (raw.to(x.dtype) - mean) / std, spread.to(x.dtype) / std

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def to(self, *args: Any, **kwargs: Any) -> LatentPrior:
        """Move the networks to a device or dtype, as torch.nn.Module.to."""
        for part in (self.prior, self.autoencoder):
            if hasattr(part, "to"):
                part.to(*args, **kwargs)
        return self

    def _particulars(self) -> dict[str, Any]:
        return {
            "image_shape": self.image_shape,
            "image_range": self.image_range,
            "prior": type(self.prior),
        }

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.denoise(x, sigma.flatten())

    def _score(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.score(x, sigma.flatten())

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        return self.prior.covariance(x, sigma.flatten())

    def _call(self, function: Callable[[Tensor], Any], x: Tensor) -> Any:
        dtype = x.dtype
        if isinstance(self.autoencoder, nn.Module):
            for parameter in self.autoencoder.parameters():
                dtype = parameter.dtype
                break
        # Fused attention has no second and no forward derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return function(x.to(dtype))

    def _of_latents(self, name: str, value: float | Tensor) -> Tensor:
        """A number, or one a channel, in a shape that meets latents (B, *event)."""
        tensor = torch.as_tensor(value, dtype=torch.float64)
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} must be finite, got {tensor.flatten().tolist()}")
        if tensor.ndim == 0:
            return tensor
        if tensor.ndim == 1 and self.event_shape and len(tensor) == self.event_shape[0]:
            return tensor.reshape(-1, *[1] * (len(self.event_shape) - 1))
        raise ValueError(
            f"{name} must be a number or hold one value for each channel of latents "
            f"{self.event_shape}, got shape {tuple(tensor.shape)}"
        )

    def _check_channels(self) -> None:
        """Refuse latents of other channels than the autoencoder's config states, where it does."""
        channels = latent_channels(getattr(self.autoencoder, "config", None) or {})
        if channels is not None and tuple(self.event_shape[:1]) != (channels,):
            raise ValueError(
                f"the prior is of latents {self.event_shape}, {type(self.autoencoder).__name__} "
                f"takes latents of {channels} channels; they do not belong together"
            )

    def _image_shape(self, stated: tuple[int, ...] | None) -> tuple[int, ...]:
        config = getattr(self.autoencoder, "config", None) or {}
        if "block_out_channels" in config and "out_channels" in config:
            if stated is not None:
                return tuple(int(n) for n in stated)
            factor = 2 ** (len(config["block_out_channels"]) - 1)
            return (int(config["out_channels"]), *(n * factor for n in self.event_shape[1:]))
        raw = self.latent_mean.float().expand(1, *self.event_shape)
        if isinstance(self.autoencoder, nn.Module):
            for parameter in self.autoencoder.parameters():
                raw = raw.to(parameter.device)
                break
        try:
            with torch.no_grad():
                x = self._call(self.autoencoder.decode, raw)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"{type(self.autoencoder).__name__} does not decode latents of the prior's shape "
                f"{self.event_shape}: {str(error)[:200]}"
            ) from error
        found = tuple((x if isinstance(x, Tensor) else x.sample).shape[1:])
        if stated is not None and tuple(stated) != found:
            raise ValueError(
                f"image_shape is {tuple(stated)}, but {type(self.autoencoder).__name__} decodes "
                f"latents {self.event_shape} to images {found}; leave image_shape out"
            )
        return found


def latent_channels(config: Any) -> int | None:
    """Channels of the latents, as a diffusers autoencoder's config states them."""
    return config.get("vq_embed_dim") or config.get("latent_channels")


def _standardisation(config: Any) -> tuple[float | Tensor, float | Tensor]:
    """(latent_mean, latent_std) as a diffusers autoencoder's config states them."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    factor = config.get("scaling_factor") or 1.0
    if mean is None:
        mean = config.get("shift_factor") or 0.0
    raw_std = torch.as_tensor(1.0 if std is None else std, dtype=torch.float64)
    return torch.as_tensor(mean, dtype=torch.float64), raw_std / factor


def _mapped(x: Tensor, source: tuple[float, float], target: tuple[float, float]) -> Tensor:
    """x from one range of values to another; unchanged where they are equal."""
    if source == target:
        return x
    unit = (target[1] - target[0]) / (source[1] - source[0])
    return target[0] + unit * (x - source[0])
