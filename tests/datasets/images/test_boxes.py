import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ipslib.datasets.images.boxes import Boxes
from ipslib.datasets.images.sources import open_source
from ipslib.errors import IpslibError

HEADING = "image,x,y,width,height,defect\n"


@pytest.fixture
def folder(tmp_path):
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    Image.new("L", (60, 40)).save(tmp_path / "b.png")
    return tmp_path


def boxes(folder, text, heading=HEADING):
    (folder / "boxes.csv").write_text(heading + text)
    return Boxes(folder / "boxes.csv")


def test_boxes_are_those_of_a_file_however_it_is_spelt(folder):
    read = boxes(folder, "a.png,5,7,10,3,open\n./a.png,1,2,3,4,\nnone.png,1,1,1,1,short\n")
    assert read.of(folder / "a.png").tolist() == [[7, 5, 3, 10], [2, 1, 4, 3]]
    assert read.of(folder / "b.png").shape == read.of(folder / "none.png").shape == (0, 4)


def test_they_are_whole_pixels_outward_cut_off_at_the_edge(folder):
    read = boxes(folder, "a.png,5.5,7,10,3.2,\na.png,-3,30,10,20,\n")
    source = open_source(folder / "a.png", patch_size=10)
    on, n_cut = read.on(source, folder / "a.png")
    assert on.tolist() == [[7, 5, 4, 11], [30, 0, 10, 7]] and n_cut == 1
    source.downsample = 2  # a level of a pyramid of 120 x 80 px
    assert read.on(source, folder / "a.png")[0][0].tolist() == [3, 2, 3, 6]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("a.png,60,0,5,5,", "line 2 .*60 x 40"),
        ("a.png,0,-9,5,5,", "line 2"),
        ("a.png,0,0,0,5,", "line 2"),
        ("a.png,0,0,5,-5,", "line 2"),
        ("a.png,0,0,,5,", "line 2"),
        ("a.png,0,left,5,5,", "left"),
    ],
)
def test_what_is_no_box_of_the_image_is_refused(folder, row, named):
    source = open_source(folder / "a.png", patch_size=10)
    with pytest.raises(IpslibError, match=named):
        boxes(folder, row + "\n").on(source, folder / "a.png")
    with pytest.raises(IpslibError, match="height, width"):
        boxes(folder, "a.png,1,2\n", heading="image,x,y\n")


def test_the_boxes_of_real_boards_lie_in_them(shared):
    folder = shared / "deeppcb"
    if not folder.is_dir():
        pytest.skip("../shared holds no images of circuit boards")
    read, table = Boxes(folder / "boxes.csv"), pd.read_csv(folder / "labels.csv")
    areas = []
    for name in table["image"][:100]:
        on, n_cut = read.on(open_source(folder / name, patch_size=64), folder / name)
        assert n_cut == 0 and (len(on) > 0) == name.endswith("_test.jpg")
        areas += on[:, 2:].prod(axis=1).tolist()
    assert 0.001 < np.median(areas) / 640**2 < 0.01
