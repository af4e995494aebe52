"""The page of an image and its kept patches: it holds all it needs, and shows the true pixels."""

import json
import re
import shutil
import subprocess
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ipslib.datasets.images.attention import Attention
from ipslib.datasets.images.attention_page import attention_page, open_picture
from ipslib.datasets.images.sources import FeatureBag, open_source
from ipslib.datasets.slides.slide import Slide
from ipslib.errors import IpslibError

CORNERS, P = np.array([[0, 0], [1150, 550], [300, 650]]), 100  # the second and third hang over
SHAPE = (1200, 700)


def attention(task: str = "shape", classes=("disc", "ring")) -> Attention:
    shares = dict(zip(classes, (0.25, 0.75), strict=True))
    weights = np.array([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]])
    alone = np.array([[0.1, 0.9], [0.5, 0.5], [0.8, 0.2]])
    return Attention(CORNERS, P, {task: weights}, {task: classes[1]}, {task: shares}, {task: alone})


def lines() -> np.ndarray:
    """Strokes on black, of which every pixel is kept."""
    image = np.zeros(SHAPE, np.uint8)
    image[::37], image[:, ::53] = 255, 120
    return image


def smooth() -> np.ndarray:
    """Colours that JPEG keeps within a few levels."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack([rows // 8, cols // 4, (rows + cols) // 10], axis=-1).astype(np.uint8)


def data_of(path: Path) -> dict:
    [data] = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(data)


def pixels_of(text: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(b64decode(text))))


def level_of(page: dict, level: int) -> np.ndarray:
    """A level of the pyramid put together."""
    rows: dict[int, dict[int, np.ndarray]] = {}
    for name, tile in page["tiles"].items():
        at_level, row, col = map(int, name.split("/"))
        if at_level == level:
            rows.setdefault(row, {})[col] = pixels_of(tile)
    joined = [np.concatenate([cols[c] for c in sorted(cols)], axis=1) for cols in rows.values()]
    return np.concatenate(joined)


def test_every_pixel_and_number_is_in_the_page(tmp_path):
    boxes = np.array([[10, 20, 30, 40]])
    path = attention_page(lines(), attention(), tmp_path / "a.html", title="a", boxes=boxes)
    page = data_of(path)
    assert (page["width"], page["height"]) == (700, 1200)
    assert (page["finest"], page["coarsest"], page["note"]) == (0, 2, "")
    assert np.array_equal(level_of(page, 0), lines())
    halved = lines().reshape(600, 2, 350, 2).mean(axis=(1, 3))
    assert abs(level_of(page, 1) - halved).max() <= 1
    assert level_of(page, 2).shape == (300, 175)
    for (top, left), picture in zip(CORNERS, page["pictures"], strict=True):
        assert np.array_equal(pixels_of(picture), lines()[top : top + P, left : left + P])
    assert page["corners"] == CORNERS[:, ::-1].tolist() and page["size"] == P
    assert page["boxes"] == [[20, 10, 40, 30]]  # x, y, width, height
    [task] = page["tasks"]
    assert task["weights"] == [[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]]
    assert task["probabilities"] == [0.25, 0.75]
    assert task["alone"] == [[0.1, 0.9], [0.5, 0.5], [0.8, 0.2]]


def test_a_page_asks_nothing_of_the_network(tmp_path):
    text = attention_page(lines(), attention(), tmp_path / "a.html").read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|//[\w.]+\.\w+/|@import|url\(|<link|<iframe|\bfetch\(", text)


def test_names_cannot_break_out_of_the_page(tmp_path):
    hostile = "</script><img src=x>"
    plain = attention_page(lines(), attention(), tmp_path / "a.html", title="a").read_text()
    named = attention(hostile, (hostile, "{{data}}"))
    path = attention_page(lines(), named, tmp_path / "b.html", title=f"{hostile} {{{{data}}}}")
    assert path.read_text().count("<") == plain.count("<")
    assert data_of(path)["tasks"][0]["name"] == hostile


@pytest.mark.parametrize("kind", ["file", "slide", "float"])
def test_files_slides_and_floats_look_as_they_do(tmp_path, kind):
    image, path = smooth(), tmp_path / "a.tif"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb")
    shown = {
        "file": lambda: path,
        "slide": lambda: Slide(path, mpp=0.5, reader="tifffile"),
        "float": lambda: open_source(image / np.float32(255), patch_size=P),
    }[kind]()
    page = data_of(attention_page(shown, attention(), tmp_path / "a.html"))
    assert abs(level_of(page, 0).astype(int) - image).mean() < 1.5
    top, left = CORNERS[0]
    crop = image[top : top + P, left : left + P]
    assert abs(pixels_of(page["pictures"][0]).astype(int) - crop).mean() < 1.5


def test_a_level_of_a_pyramid_is_shown_where_level_0_lies(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        options = {"photometric": "minisblack", "tile": (64, 64)}
        tiff.write(lines(), subifds=1, **options)
        tiff.write(lines()[::2, ::2], subfiletype=1, **options)
    source = open_source(path, patch_size=P // 2, level=1)
    page = data_of(attention_page(source, attention(), tmp_path / "a.html"))
    assert (page["width"], page["height"], page["finest"]) == (700, 1200, 1)
    assert np.array_equal(level_of(page, 1), lines()[::2, ::2])
    assert pixels_of(page["pictures"][0]).shape == (P // 2, P // 2)


def test_a_page_stays_below_its_bound_and_says_what_that_took(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (*SHAPE, 3), np.uint8)
    with pytest.warns(UserWarning, match="max_megabytes"):
        path = attention_page(noise, attention(), tmp_path / "a.html", max_megabytes=1)
    page = data_of(path)
    assert path.stat().st_size <= 1e6
    assert page["finest"] >= 1 and "0/0/0" not in page["tiles"] and page["note"]
    assert pixels_of(page["pictures"][0]).shape == (P, P, 3)  # the patches keep their own


def test_a_large_window_is_read_in_bands_and_looks_the_same(monkeypatch):
    noise = np.random.RandomState(0).randint(0, 256, (*SHAPE, 3), np.uint8)
    source, areas = open_source(noise, patch_size=P), []
    picture, window = open_picture(source), source.window

    def seen(rows: slice, cols: slice) -> np.ndarray:
        areas.append((rows.stop - rows.start) * (cols.stop - cols.start))
        return window(rows, cols)

    monkeypatch.setattr(source, "window", seen)
    for box, size in (((0, 0, 700, 1200), (97, 151)), ((3, 5, 698, 1190), (695, 1185))):
        whole = np.asarray(picture.read(box, size), int)
        with monkeypatch.context() as patch:
            patch.setattr(f"{open_picture.__module__}._AT_ONCE", 50_000)
            areas.clear()
            banded = np.asarray(picture.read(box, size), int)
        assert abs(banded - whole).max() <= 1 and max(areas) < 60_000


@pytest.mark.filterwarnings("error")
def test_large_patches_are_shown_at_the_resolution_that_shows_them(tmp_path):
    large = attention()._replace(corners=CORNERS[:1], patch_size=640)
    page = data_of(attention_page(lines(), large, tmp_path / "a.html"))
    assert page["finest"] == 2
    assert max(pixels_of(page["pictures"][0]).shape) == 256


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(IpslibError, match="attention"):
        attention_page(lines()[:500], attention(), tmp_path / "a.html")
    with pytest.raises(IpslibError, match="max_megabytes"):
        attention_page(lines(), attention(), tmp_path / "a.html", max_megabytes=0)
    many = attention()._replace(alone={"shape": np.full((3, 60_000), 0.1234)})
    with pytest.raises(IpslibError, match="max_megabytes"):
        attention_page(lines(), many, tmp_path / "a.html", max_megabytes=1)
    bag = FeatureBag.__new__(FeatureBag)
    bag.name = "bag.h5"
    with pytest.raises(IpslibError, match="features"):
        attention_page(bag, attention(), tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_a_browser_shows_the_patches_and_their_attention(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    path = attention_page(lines(), attention(), tmp_path / "a.html", title="Strokes & lines")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert "<h1>Strokes &amp; lines</h1>" in done.stdout
    labels = re.findall(r'aria-label="Patch (\d) of 3, ([\d.]+)\s%', done.stdout)
    assert labels == [("1", "60.0"), ("2", "20.0"), ("3", "20.0")]
