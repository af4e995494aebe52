"""What `efficiency` measured as tables: every measurement, and how far each way came."""

import pandas as pd

from ipslib.study.efficiency import NOT_TRIED
from ipslib.study.efficiency_step import DONE

WAY_NAMES = {"ips": "IPS", "all": "all patches", "whole": "whole image"}
_MEASURES = ("step_mb", "peak_mb", "seconds")


def shown_sides(frame: pd.DataFrame) -> pd.DataFrame:
    """The measurements for reading: milliseconds, whole megabytes, operations in 10⁹ (G)."""
    done = frame["outcome"] == DONE
    milliseconds = 1000 * frame[["seconds", "roofline_seconds"]]
    columns = {
        "way": frame["way"],
        "side (px)": frame["side"],
        "N": frame["n_patches"],
        "step memory (MB)": frame["step_mb"].round().astype("Int64"),
        "process peak (MB)": frame["peak_mb"].round().astype("Int64"),
        "ms an image": milliseconds["seconds"].map("{:,.1f}".format).where(done),
        "roofline (ms)": milliseconds["roofline_seconds"].map("{:,.1f}".format).where(done),
        "G operations an image": (frame["operations"] / 1e9).map("{:,.2f}".format).where(done),
        "timed steps": frame["n_timed"],
        "outcome": frame["outcome"],
    }
    return pd.DataFrame(columns)


def reach(frame: pd.DataFrame) -> pd.DataFrame:
    """How far each way came, and how its needs grew on the way: a row a way and step.

    Args:
        frame: of `measure_sides`.

    Returns:
        way, step; the smallest and largest side `first` and `last` that were done; the side at
        which it `fails` and `why`; `step_mb`, `peak_mb` and `seconds` at both ends, as
        `step_mb_first`, `step_mb_last` and so on; `over_roofline`, the time at the largest side
        over its roofline. What does not exist is blank.
    """
    rows = []
    for (way, step), of in frame.sort_values("side").groupby(["way", "step"], sort=False):
        done = of[of["outcome"] == DONE]
        failed = of[~of["outcome"].isin([DONE, NOT_TRIED])]
        row = {"way": way, "step": step}
        if len(done):
            ends = {"first": done.iloc[0], "last": done.iloc[-1]}
            row |= {end: at["side"] for end, at in ends.items()}
            row |= {f"{name}_{end}": at[name] for name in _MEASURES for end, at in ends.items()}
            row["over_roofline"] = ends["last"]["seconds"] / ends["last"]["roofline_seconds"]
        if len(failed):
            row |= {"fails": failed["side"].iloc[0], "why": failed["outcome"].iloc[0]}
        rows.append(row)
    numbers = [f"{name}_{end}" for name in _MEASURES for end in ("first", "last")]
    columns = ["way", "step", "first", "last", "fails", "why", *numbers, "over_roofline"]
    sides = dict.fromkeys(("first", "last", "fails"), "Int64")
    return pd.DataFrame(rows).reindex(columns=columns).astype(sides)


def reach_in_words(reached: pd.DataFrame, way: str, step: str = "train") -> str:
    """Such as "whole image: 1536 px (out of memory at 3072 px)"."""
    row = reached.set_index(["way", "step"]).loc[(way, step)]
    last = "no side" if pd.isna(row["last"]) else f"{row['last']} px"
    end = "the largest tried" if pd.isna(row["fails"]) else f"{row['why']} at {row['fails']} px"
    return f"{WAY_NAMES[way]}: {last} ({end})"
