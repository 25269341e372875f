"""Images out of bytes: numpy's are torch's, so that every stage sees what was trained on."""

import numpy as np
import pytest
import torch

from edgekd.codes import from_codes
from edgekd.teachers import codes as in_torch

ALL = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-2.1179, 2.64), (0.1, 0.3), (-5, 3)])
def test_images_are_those_of_torch_to_the_bit_and_become_the_same_bytes(low: float, high: float) -> None:
    images = from_codes(ALL, low, high)
    assert (images.dtype, images.shape) == (np.float32, ALL.shape)
    np.testing.assert_array_equal(images, in_torch.from_codes(torch.from_numpy(ALL), low, high))
    np.testing.assert_array_equal(in_torch.to_codes(torch.from_numpy(images), low, high), ALL)
