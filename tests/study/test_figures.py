import io
from itertools import product

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study import figures
from ipslib.study.tables import chance_level, long_form

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


def test_every_panel_says_its_task_and_chance_and_its_axes_have_units(records):
    figure = figures.grouped_bars(long_form(records), published=published())
    for task in TASKS:
        chance = f"chance\n{100 * chance_level(task):.2g} %"
        assert chance in [text.get_text() for text in panel(figure, task).texts]
    assert panel(figure, "majority").get_ylabel() == "test accuracy (%)"
    bottom = panel(figure, "top")
    assert bottom.get_xlabel() == "digit size and object-to-image ratio"
    assert [t.get_text() for t in bottom.get_xticklabels()] == ["28 px\n0.0087 %", "56 px\n0.035 %"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training images:", "400", "800", "one run", "95 % interval", "published"]


def test_a_curve_holds_training_of_every_epoch_and_test_where_it_was_evaluated(records):
    levels = {record["id"]: record["config"]["n_train"] for record in records}
    table = figures.curve_table(records, levels)
    assert len(table) == len(records) * 4 * len(TASKS)
    run = make_record(28, 400, 1)
    rows = table[(table["id"] == run["id"]) & (table["task"] == "majority")]
    last = accuracy_of(28, 400, 1)
    assert set(rows["level"]) == {400}
    assert rows["train"].tolist() == pytest.approx([last * epoch / 5 for epoch in (1, 2, 3, 4)])
    assert rows["test"].dropna().tolist() == pytest.approx([last / 2, last])
    assert rows.loc[rows["test"].notna(), "epoch"].tolist() == [2, 4]
    figures.learning_curves(records[:3]).canvas.draw()


def test_bars_need_no_groups(records):
    frame = long_form(records).query("digit_size == 28")
    ax = panel(figures.grouped_bars(frame, x="n_train", bars=None), "top")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["400", "800"]


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
