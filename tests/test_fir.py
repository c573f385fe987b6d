"""Resampling by an FIR filter against direct convolution."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from priors.pretrained.networks import fir


@pytest.mark.parametrize("kernel", [[1, 3, 3, 1], [1, 2, 1], [1, 1], [1, 5, 2, 0.5, 3]])
def test_resampling_against_direct_convolution(kernel):
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = np.outer(kernel, kernel) / np.sum(kernel) ** 2
    extra = len(kernel) - 2
    first, last = (extra + 1) // 2, extra // 2

    def convolved(image, before, after, k):
        return scipy.signal.convolve2d(np.pad(image, (before, after)), k, mode="valid")

    spread = np.zeros((2, 3, 12, 8))
    spread[..., ::2, ::2] = x
    up, down = fir.up(x, kernel).numpy(), fir.down(x, kernel).numpy()
    for b, c in np.ndindex(2, 3):
        direct = convolved(x[b, c].numpy(), first, last, k)[::2, ::2]
        np.testing.assert_allclose(down[b, c], direct, atol=1e-13)
        # One pixel more before than `down` has, for the zeros that follow the last pixel.
        direct = convolved(spread[b, c], first + 1, last, 4 * k)
        np.testing.assert_allclose(up[b, c], direct, atol=1e-13)
    flat = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    inner = fir.down(flat, kernel)[..., 3:-3, 3:-3]
    torch.testing.assert_close(inner, torch.ones_like(inner), atol=1e-13, rtol=0)


def test_symmetric_filters_keep_the_centre():
    ramp = torch.arange(16.0, dtype=torch.float64).expand(1, 1, 16, 16)
    inner = fir.down(ramp, [1, 3, 3, 1])[0, 0, 4, 2:-2]
    torch.testing.assert_close(inner, torch.arange(4.5, 12, 2, dtype=torch.float64))
    inner = fir.up(ramp, [1, 3, 3, 1])[0, 0, 8, 4:-4]
    torch.testing.assert_close(inner, torch.arange(1.75, 13.5, 0.5, dtype=torch.float64))
