from itertools import pairwise

import cv2
import numpy as np
import pytest

from ipslib.datasets.megapixel_mnist.lines import line_pixels
from ipslib.datasets.megapixel_mnist.noise import bezier_curve, draw_pixel_stroke, random_control


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 13])
class TestOpenCVTakesTheSamePixels:
    def test_for_any_line(self, width):
        random = np.random.RandomState(width)
        for size in (28, 28, 41):
            for start, stop in random.randint(0, size, (100, 2, 2)).tolist():
                drawn, judge = np.zeros((2, size, size), np.uint8)
                drawn[line_pixels(tuple(start), tuple(stop), width, size=size)] = 255
                assert np.array_equal(drawn, cv2.line(judge, start, stop, 255, width))

    def test_for_a_stroke(self, width):
        random = np.random.RandomState(width)
        for _ in range(100):
            control = random_control(random)
            points = bezier_curve((control * 28).astype(int)).astype(int).tolist()
            judge = np.zeros((28, 28), np.uint8)
            for start, stop in pairwise(points):
                cv2.line(judge, start, stop, 255, width)
            assert np.array_equal(draw_pixel_stroke(control, width + 0.9), judge)
