import pandas as pd
import pytest

from ipslib.study.efficiency import NOT_TRIED
from ipslib.study.efficiency_step import DONE, OUT_OF_MEMORY, OUT_OF_TIME
from ipslib.study.efficiency_tables import reach, reach_in_words, shown_sides


def measured(way: str, outcomes: dict[int, str], step: str = "train") -> list[dict]:
    """Made-up measurements: time grows with the area, memory with the side."""
    rows = []
    for side, outcome in outcomes.items():
        done = outcome == DONE
        numbers = {"seconds": side**2 / 1e6, "operations": side**2 * 1e3, "step_mb": side * 1.0}
        numbers |= {"peak_mb": side + 400.0, "roofline_seconds": side**2 / 4e6}
        row = {"way": way, "step": step, "side": side, "n_patches": 1, "batch_size": 4}
        row |= {"outcome": outcome, "n_timed": int(done)}
        rows.append(row | {name: x if done else float("nan") for name, x in numbers.items()})
    return rows


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        measured("ips", {100: DONE, 200: DONE, 400: DONE})
        + measured("all", {100: DONE, 200: OUT_OF_MEMORY, 400: NOT_TRIED})
        + measured("whole", {100: OUT_OF_TIME, 200: NOT_TRIED, 400: NOT_TRIED})
    )


def test_how_far_each_way_came(frame):
    rows = reach(frame).set_index("way")
    assert rows["last"].dropna().to_dict() == {"ips": 400, "all": 100}
    assert rows["fails"].dropna().to_dict() == {"all": 200, "whole": 100}
    assert rows["why"].dropna().to_dict() == {"all": OUT_OF_MEMORY, "whole": OUT_OF_TIME}
    ips = rows.loc["ips"]
    assert (ips["first"], ips["step_mb_first"], ips["step_mb_last"]) == (100, 100.0, 400.0)
    assert (ips["peak_mb_last"], ips["seconds_last"], ips["over_roofline"]) == (800.0, 0.16, 4.0)
    assert pd.isna(rows.loc["whole", "seconds_last"])


def test_how_far_in_words(frame):
    reached = reach(frame)
    words = [reach_in_words(reached, way) for way in ("ips", "all", "whole")]
    assert words == [
        "IPS: 400 px (the largest tried)",
        "all patches: 100 px (out of memory at 200 px)",
        "whole image: no side (out of time at 100 px)",
    ]


def test_shown_numbers_have_units_and_blanks(frame):
    shown = shown_sides(frame)
    first, failed = shown.iloc[0], shown.iloc[4]
    assert (first["ms an image"], first["roofline (ms)"], first["step memory (MB)"]) == (
        "10.0",
        "2.5",
        100,
    )
    assert failed["outcome"] == OUT_OF_MEMORY
    assert failed[["ms an image", "step memory (MB)", "roofline (ms)"]].isna().all()
