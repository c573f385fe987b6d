"""Nonlinear blur: a network that imitates it, or a camera that blurs light and stores values."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from ..checks import Shape, check_dtype, check_finite, check_image_shape, check_tensor
from ..imaging import Blur
from ..operator import Operator
from .tone import Gamma, HighDynamicRange


@final
class NonlinearBlur(Operator):
    """y = network(x) or network(x, code): blur as a trained network knows it.

    The network is used as it is, in its own precision and on its own device; images have its
    dtype. It maps (B, C, H, W), in the range it was trained on, to the same shape, each image
    alone. A code is what a blur network of the kernel-code sort takes beside the image: one draw
    of the unknown kernel, fixed for this operator. Clip the result with
    `HighDynamicRange(gain=1) @ NonlinearBlur(...)` if the picture was stored in [0, 1].
    Differentiable if the network is. Cost: one network call.

    Args:
        network: an nn.Module in eval mode.
        code: its second argument for one image, (*code); None if it takes the image alone.
        image_shape: (C, H, W); default any the network takes.

    Raises:
        TypeError: no nn.Module; a code that is no floating-point tensor; at use, a network that
            returns no tensor or another dtype.
        ValueError: a network in training mode (dropout and batch statistics make y random and
            tie samples together), a code that is not finite; at use, an output of another
            shape than the images.

    Paper: Tran et al., Explore image deblurring via encoded blur kernel space, 2021,
    https://arxiv.org/abs/2104.00317
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self, network: nn.Module, code: Tensor | None = None, image_shape: Shape | None = None
    ) -> None:
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network must be an nn.Module, got {type(network).__name__}; a function is "
                "wrapped by from_simulator"
            )
        if any(module.training for module in network.modules()):
            raise ValueError("the network is in training mode; call network.eval() first")
        self.network, self.code = network, None
        if code is not None:
            check_tensor("code", code)
            check_dtype("code", code, "real")
            check_finite("code", code)
            self.code = code.detach().clone()
        if image_shape is not None:
            self.event_shape = self.measurement_shape = check_image_shape(image_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.event_shape or measurement_shape

    def _apply(self, x: Tensor) -> Tensor:
        if self.code is None:
            y = self.network(x)
        else:
            code = self.code.to(x)
            y = self.network(x, code.expand(len(x), *code.shape))
        check_tensor("the output of the network", y)
        if y.dtype != x.dtype:
            raise TypeError(f"the network returned {y.dtype} for an image of {x.dtype}")
        if y.shape != x.shape:
            raise ValueError(
                f"the network returned {tuple(y.shape)} for images {tuple(x.shape)}; a map that "
                "changes the shape is wrapped by from_simulator"
            )
        return y


@final
class CameraBlur(Operator):
    """y = r(min(exposure (k * r^-1(x)), 1)): blur acts on light, a camera stores r of it.

    Stored values x are turned to light by the inverse r^-1 of the camera's response, the light is
    blurred and exposed, the sensor saturates at 1 (and at 0), and r codes what it counted. Bright
    points therefore spread more than a blur of stored values has them spread, and overexposed
    ones (exposure > 1) come out flat. A model of how photographs blur, with no trained part; it
    imitates no dataset in particular, and not the network of the DPS benchmark.

    (B, C, H, W) to the shape that the padding gives. Constant images keep their value up to
    saturation if k sums to 1. The derivative is 0 where the sensor saturates. Cost: one `Blur` and
    two powers per pixel.

    Args:
        kernel: k, (h, w); it is not normalised.
        padding: see `Blur`.
        response: r, from light to stored values.
        exposure: factor on the light, > 0.

    Raises: as `Blur` and `HighDynamicRange`; TypeError: a response that is no `Gamma`.

    Paper: Tai et al., Nonlinear camera response functions and image deblurring: theoretical
    analysis and practice, 2013, https://doi.org/10.1109/TPAMI.2013.40
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self,
        kernel: Tensor,
        padding: str = "reflect",
        response: Gamma | None = None,
        exposure: float = 1.0,
    ) -> None:
        response = Gamma() if response is None else response
        if not isinstance(response, Gamma):
            raise TypeError(f"response must be a Gamma, got {type(response).__name__}")
        self.response = response
        self.blur = Blur(kernel, padding)  # type: ignore[arg-type]
        self.sensor = HighDynamicRange(exposure, pivot=0.0)
        self._light = response.inverse

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.blur.output_shape(event_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.blur.input_shape(measurement_shape)

    def _apply(self, x: Tensor) -> Tensor:
        light = self.blur.apply(self._light.apply(x))
        return self.response.apply(self.sensor.apply(light))
