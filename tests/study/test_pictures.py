import io

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from ipslib.study.pictures import smaller_png

matplotlib.use("Agg")


def png_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), int)


def test_a_drawing_is_smaller_and_looks_the_same():
    figure, ax = plt.subplots()
    ax.plot(np.random.default_rng(0).random(50))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    plt.close(figure)
    before, after = buffer.getvalue(), smaller_png(buffer.getvalue())
    assert len(after) < 0.7 * len(before)
    apart = np.abs(pixels(after) - pixels(before))
    assert apart.shape == pixels(before).shape and apart.mean() < 0.5


def test_clear_ground_becomes_white():
    image = Image.new("RGBA", (60, 60), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (10, 10, 50, 50))
    for i in range(60):
        image.putpixel((i, i), (0, 4 * i, 0, 255))
    after = smaller_png(png_of(image))
    assert after != png_of(image)
    assert pixels(after)[0, 30].tolist() == [255, 255, 255]
    assert pixels(after)[15, 30].tolist() == [0, 0, 255]


def test_a_photograph_stays_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    png = png_of(Image.fromarray(noise))
    assert smaller_png(png) == png


def test_what_would_not_be_smaller_stays():
    palette = png_of(Image.new("P", (8, 8)))
    assert smaller_png(palette) == palette
    tiny = png_of(Image.new("RGB", (1, 1), "red"))
    assert smaller_png(tiny) == tiny
