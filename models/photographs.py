"""Calibration and test images: the photographs that scikit-image ships inside its wheel, nothing is downloaded."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import data, transform

from npu_backend.errors import OptionError

# Ordered so that any prefix is varied: people, animals, still life, night, texture, microscopy, text.
CALIBRATION_PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "hubble_deep_field",
    "immunohistochemistry",
    "page",
    "coins",
    "retina",
    "camera",
    "brick",
    "moon",
    "gravel",
    "text",
)
# Never used for calibration.
TEST_PHOTOGRAPHS = ("grass", "clock", "cell")
# Where "page" has its heading: top and bottom row, left column.
HEADING = (8, 40, 2)

FloatImage = NDArray[np.float32]


@cache
def _square(name: str) -> NDArray[np.uint8]:
    """The largest centred square of a photograph, uint8[side, side, 3]; grey ones are repeated over the channels."""
    image: NDArray[Any] = getattr(data, name)()
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side, :3].astype(np.uint8)


@lru_cache(maxsize=64)
def photograph(name: str, height: int, width: int, channels: int = 3) -> FloatImage:
    """float32[1, channels, height, width] in [-1, 1], NCHW; one channel is the grey value. Treat it as read-only."""
    if name not in CALIBRATION_PHOTOGRAPHS + TEST_PHOTOGRAPHS:
        known = ", ".join(CALIBRATION_PHOTOGRAPHS + TEST_PHOTOGRAPHS)
        raise OptionError(f"no photograph {name!r}; choose one of {known}")
    if channels not in (1, 3):
        raise OptionError(f"a photograph has 1 or 3 channels, not {channels}; give the calibration tensors yourself")
    unit: NDArray[Any] = transform.resize(_square(name), (height, width), order=1, anti_aliasing=True)
    image = unit.astype(np.float32).transpose(2, 0, 1)[None] * 2 - 1
    return image if channels == 3 else image.mean(axis=1, keepdims=True, dtype=np.float32)


def text_line(height: int, width: int) -> FloatImage:
    """float32[1, 3, height, width] in [-1, 1]: a photographed line of text, as much of it as the width shows."""
    top, bottom, left = HEADING
    page: NDArray[Any] = data.page()
    crop = page[top:bottom, left : left + round((bottom - top) * width / height)]
    unit: NDArray[Any] = transform.resize(crop, (height, width), order=1, anti_aliasing=True)
    return np.repeat(unit.astype(np.float32)[None, None] * 2 - 1, 3, axis=1)


def calibration_images(height: int, width: int, channels: int = 3, count: int = 8) -> list[FloatImage]:
    """The first `count` calibration photographs; raises OptionError when there are not so many."""
    if not 1 <= count <= len(CALIBRATION_PHOTOGRAPHS):
        raise OptionError(f"calibration takes 1 to {len(CALIBRATION_PHOTOGRAPHS)} photographs, not {count}")
    return [photograph(name, height, width, channels) for name in CALIBRATION_PHOTOGRAPHS[:count]]
