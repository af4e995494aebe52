import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ipslib.study.efficiency import NOT_TRIED
from ipslib.study.efficiency_figures import side_curves
from ipslib.study.efficiency_step import DONE, OUT_OF_MEMORY, OUT_OF_TIME
from tests.study.test_efficiency_tables import measured


def draw(frame: pd.DataFrame):
    figure = side_curves(frame, memory_limit_mb=1000, seconds_limit=8)
    figure.canvas.draw()
    return figure


def crosses(ax) -> list[tuple[float, float]]:
    return [
        (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "x"
    ]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_lines_and_rooflines_are_the_measured_numbers():
    figure = draw(pd.DataFrame(measured("ips", {100: DONE, 400: DONE})))
    times, memories = figure.axes
    line, roofline = times.lines
    assert np.allclose(line.get_ydata(), [0.01, 0.16])
    assert np.allclose(roofline.get_ydata(), [0.0025, 0.04])
    assert np.allclose(memories.lines[0].get_ydata(), [100, 400])
    assert crosses(times) == crosses(memories) == []
    assert times.get_ylabel() == "seconds an image" and "(MB)" in memories.get_ylabel()


def test_out_of_memory_stands_at_the_memory_limit():
    rows = measured("whole", {100: DONE, 200: OUT_OF_MEMORY, 400: NOT_TRIED})
    times, memories = draw(pd.DataFrame(rows)).axes
    assert crosses(memories) == [(200, 1000)]
    assert crosses(times) == [(200, pytest.approx(0.04))]  # four times the area, four times 0.01


def test_out_of_time_stands_at_the_time_limit_of_an_image():
    times, memories = draw(pd.DataFrame(measured("all", {100: DONE, 200: OUT_OF_TIME}))).axes
    assert crosses(times) == [(200, 8 / 4)]
    assert crosses(memories) == []


def test_a_way_that_never_worked_has_only_its_cross():
    rows = measured("ips", {100: DONE}) + measured("whole", {100: OUT_OF_MEMORY})
    times, memories = draw(pd.DataFrame(rows)).axes
    assert crosses(times) == [] and crosses(memories) == [(100, 1000)]


def test_each_step_has_its_row():
    rows = measured("ips", {100: DONE, 200: DONE})
    rows += measured("ips", {100: DONE, 200: DONE}, step="classify")
    figure = draw(pd.DataFrame(rows))
    titles = [ax.get_title() + ax.get_title(loc="left") for ax in figure.axes[::2]]
    assert titles == ["Training step", "Classification"]
