import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from ipslib.errors import IpslibError
from ipslib.study.figures import arm_colours, save_figure, smaller_png, task_panels, use_style


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("n", [1, 2, 9, 15])
def test_arms_have_different_colours(n):
    assert len({to_rgb(colour) for colour in arm_colours(n)}) == n


def test_panels_without_a_task_are_refused():
    with pytest.raises(IpslibError, match="task"):
        task_panels([], x_label="", y_label="")


def test_a_figure_is_saved_whole_at_twice_the_pixels(tmp_path, monkeypatch):
    figure, _ = plt.subplots()
    path = save_figure(figure, tmp_path / "figures" / "o2i.png")
    with Image.open(path) as image:
        assert image.size == tuple(int(200 * side) for side in figure.get_size_inches())
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_figure(figure, path)
    assert [p.name for p in path.parent.iterdir()] == ["o2i.png"]
    Image.open(path).verify()


def png_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), int)


def test_a_drawing_is_smaller_looks_the_same_and_its_clear_ground_is_white():
    drawing = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    for i in range(0, 300, 9):
        ImageDraw.Draw(drawing).ellipse((i, i, 299, 299), (0, i // 2, 200, 255), "black")
    before, after = png_of(drawing), smaller_png(png_of(drawing))
    on_white = Image.alpha_composite(Image.new("RGBA", (300, 300), "white"), drawing)
    assert len(after) < len(before) and pixels(after)[0, 299].tolist() == [255, 255, 255]
    assert np.abs(pixels(after) - pixels(png_of(on_white))).max() <= 12


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)),
        Image.new("P", (8, 8)),
        Image.new("RGB", (1, 1), "red"),
    ],
    ids=["photograph", "has a palette", "too small to gain"],
)
def test_what_would_show_or_be_no_smaller_stays(image):
    assert smaller_png(png_of(image)) == png_of(image)
