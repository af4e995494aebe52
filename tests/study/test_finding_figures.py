import io

import numpy as np
import pytest
from PIL import Image

from ipslib.study.finding_figures import effects_figure, small_picture
from ipslib.study.findings import Effect, Finding


def test_effects_on_accuracy_stand_in_points_with_their_interval():
    lines = Finding("10_noise", "Q?", Effect("lines", 0.2, 0.1, 0.3, published=-0.2))
    memory = Finding("13_memory", "Q?", Effect("memory", -0.5, -0.6, -0.4, unit="exponent"))
    (ax,) = effects_figure([lines, memory]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["10  lines"]
    drawn = {tuple(np.round(np.atleast_1d(line.get_xdata()), 6)) for line in ax.lines}
    assert {(10, 30), (20,), (-20,)} <= drawn


def test_a_wide_picture_shrinks_and_keeps_its_shape(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "01_noise.png")
    small = small_picture(tmp_path / "01_noise.png")
    with Image.open(io.BytesIO(small.data)) as picture:
        assert picture.size == (1400, 500)
    assert len(small.data) < (tmp_path / "01_noise.png").stat().st_size / 4
    assert small.width == pytest.approx(700)
