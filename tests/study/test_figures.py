import io
from itertools import pairwise, product

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study import figures
from ipslib.study.tables import chance_level, long_form, summarise

matplotlib.use("Agg")
SIZES, COUNTS, SEEDS = (28, 56), (400, 800), (0, 1, 2)


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def accuracy_of(size: int, n_train: int, seed: int) -> float:
    return size / 100 + n_train / 4000 + seed / 50


def make_record(digit_size: int, n_train: int, seed: int) -> dict:
    config = run_config({"digit_size": digit_size, "n_train": n_train, "seed": seed})
    last = {task: accuracy_of(digit_size, n_train, seed) - i / 20 for i, task in enumerate(TASKS)}
    history = [
        {
            "epoch": epoch,
            "train": {"accuracy": {task: epoch / 5 * value for task, value in last.items()}},
            "test": {"accuracy": {task: epoch / 4 * value for task, value in last.items()}}
            if epoch % 2 == 0
            else None,
        }
        for epoch in (1, 2, 3, 4)
    ]
    result = dict.fromkeys(("accuracy", "train_accuracy", "best_accuracy"), last)
    return {
        "id": config.id,
        "name": "a run",
        "config": config.flat(),
        "provenance": {},
        "history": history,
        "result": result | {"n_test": 1000, "attention": None},
    }


@pytest.fixture
def records():
    return [make_record(*run) for run in product(SIZES, COUNTS, SEEDS)]


def panel(figure, task):
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(task))


def published():
    return pd.DataFrame(
        {"digit_size": [28, 56], "n_train": [400, 800], "task": "top", "accuracy": [0.3, 0.9]}
    )


def test_bars_are_means_over_seeds_in_their_group(records):
    ax = panel(figures.grouped_bars(long_form(records)), "max")
    bars = [bar for container in ax.containers for bar in getattr(container, "patches", [])]
    assert len(bars) == len(SIZES) * len(COUNTS)
    for bar in bars:
        middle = bar.get_x() + bar.get_width() / 2
        size = SIZES[round(middle)]
        n_train = COUNTS[int(middle > round(middle))]
        mean = np.mean([accuracy_of(size, n_train, s) for s in SEEDS]) - 0.05
        assert bar.get_height() == pytest.approx(100 * mean)
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert all(right <= left for (_, right), (left, _) in pairwise(edges))


def test_every_seed_is_a_dot_over_its_bar_and_intervals_are_the_tables(records):
    frame = long_form(records)
    ax = panel(figures.grouped_bars(frame), "majority")
    dots = np.concatenate(
        [c.get_offsets() for c in ax.collections if len(c.get_offsets()) == len(SIZES) * len(SEEDS)]
    )
    drawn = sorted((SIZES[round(x)], round(y, 6)) for x, y in dots)
    runs = product(SIZES, COUNTS, SEEDS)
    assert drawn == sorted((run[0], round(100 * accuracy_of(*run), 6)) for run in runs)
    assert len(np.unique(dots[:, 0].round(6))) == len(dots)  # none hides another
    intervals = [container for container in ax.containers if hasattr(container, "has_yerr")]
    stems = [stem for each in intervals for stem in each.lines[2][0].get_segments()]
    ends = sorted(tuple(stem[:, 1]) for stem in stems)
    table = summarise(frame, by=["digit_size", "n_train"]).query("task == 'majority'")
    assert np.allclose(ends, sorted(zip(100 * table["low"], 100 * table["high"], strict=True)))


def test_published_values_are_open_markers_where_they_were_published(records):
    figure = figures.grouped_bars(long_form(records), published=published())
    marks = [line for line in panel(figure, "top").lines if line.get_marker() == "D"]
    points = np.concatenate([line.get_xydata() for line in marks])
    points = points[np.isfinite(points[:, 1])]
    assert sorted((round(x), x > round(x), y) for x, y in points) == [
        (0, False, 30.0),
        (1, True, 90.0),
    ]
    assert all(line.get_markerfacecolor() == "none" for line in marks)
    assert {line.get_markeredgecolor() for line in marks} == {figures.PUBLISHED}
    empty = [line for line in panel(figure, "max").lines if line.get_marker() == "D"]
    assert not np.isfinite([line.get_ydata() for line in empty]).any()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training images:", "400", "800", "one run", "95 % interval", "published"]


def test_every_panel_has_its_chance_line_and_its_axes_have_units(records):
    figure = figures.grouped_bars(long_form(records))
    for task in TASKS:
        ax = panel(figure, task)
        level = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        assert level == [pytest.approx(100 * chance_level(task))]
        assert any("chance" in text.get_text() for text in ax.texts)
        assert ax.get_ylim()[0] == 0
    assert panel(figure, "majority").get_ylabel() == "test accuracy (%)"
    bottom = panel(figure, "top")
    assert bottom.get_xlabel() == "digit size and object-to-image ratio"
    assert [t.get_text() for t in bottom.get_xticklabels()] == ["28 px\n0.0087 %", "56 px\n0.035 %"]


def test_bars_without_groups_stand_on_their_ticks(records):
    frame = long_form(records).query("digit_size == 28")
    ax = panel(figures.grouped_bars(frame, x="n_train", bars=None), "top")
    middles = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    assert middles == pytest.approx([0, 1])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["400", "800"]


def test_learning_curves_show_means_single_runs_and_skip_epochs_without_evaluation(records):
    chosen = [r for r in records if r["config"]["digit_size"] == 28]
    ax = panel(figures.learning_curves(chosen), "majority")
    colours = figures.level_colours(len(COUNTS))
    for n_train, colour in zip(COUNTS, colours, strict=True):
        lines = [line for line in ax.lines if to_rgba(line.get_color()) == to_rgba(colour)]
        thin = [line for line in lines if line.get_linewidth() < 1]
        assert len(thin) == len(SEEDS)
        assert all(line.get_xdata().tolist() == [2, 4] for line in thin)
        mean = np.mean([accuracy_of(28, n_train, s) for s in SEEDS])
        (test,) = [line for line in lines if line.get_linewidth() > 1.5]
        assert test.get_ydata() == pytest.approx([50 * mean, 100 * mean])
        (train,) = [line for line in lines if 1 < line.get_linewidth() < 1.5]
        assert train.get_ydata() == pytest.approx(100 * mean * np.array([1, 2, 3, 4]) / 5)
        assert train.get_linestyle() == "--"


def test_runs_that_agree_exactly_are_drawn_with_no_interval(records):
    frame = long_form(records).assign(accuracy=0.7)
    figures.grouped_bars(frame).canvas.draw()


def test_curves_of_different_settings_are_not_averaged(records):
    with pytest.raises(IpslibError, match="differ in digit_size"):
        figures.learning_curves(records)


def test_nothing_to_draw_is_said(records):
    with pytest.raises(IpslibError, match="no task to draw"):
        figures.task_panels([], x_label="", y_label="")
    with pytest.raises(IpslibError, match="histories are empty"):
        figures.learning_curves([records[0] | {"history": []}])


def test_a_figure_is_saved_whole_at_twice_the_pixels(records, tmp_path):
    figure = figures.grouped_bars(long_form(records))
    path = figures.save_figure(figure, tmp_path / "figures" / "o2i.png")
    with Image.open(path) as image:
        assert image.size == tuple(int(200 * side) for side in figure.get_size_inches())
    assert [p.name for p in path.parent.iterdir()] == ["o2i.png"]
    with pytest.raises(RuntimeError, match="stop"):
        broken = plt.figure()
        broken.savefig = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("stop"))
        figures.save_figure(broken, path)
    with Image.open(path) as image:
        image.verify()


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
    before, after = buffer.getvalue(), figures.smaller_png(buffer.getvalue())
    assert len(after) < 0.7 * len(before)
    apart = np.abs(pixels(after) - pixels(before))
    assert apart.shape == pixels(before).shape and apart.mean() < 0.5


def test_clear_ground_becomes_white():
    image = Image.new("RGBA", (60, 60), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (10, 10, 50, 50))
    for i in range(60):
        image.putpixel((i, i), (0, 4 * i, 0, 255))
    after = figures.smaller_png(png_of(image))
    assert after != png_of(image)
    assert pixels(after)[0, 30].tolist() == [255, 255, 255]
    assert pixels(after)[15, 30].tolist() == [0, 0, 255]


def test_a_photograph_stays_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    png = png_of(Image.fromarray(noise))
    assert figures.smaller_png(png) == png


def test_what_would_not_be_smaller_stays():
    palette = png_of(Image.new("P", (8, 8)))
    assert figures.smaller_png(palette) == palette
    tiny = png_of(Image.new("RGB", (1, 1), "red"))
    assert figures.smaller_png(tiny) == tiny
