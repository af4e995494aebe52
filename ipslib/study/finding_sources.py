"""Which saved tables answer each notebook's question, and how an effect is made of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.api as sm

from ipslib.study.findings import Effect
from ipslib.study.published import published_accuracy
from ipslib.study.statistics import CONFIDENCE, t_interval
from ipslib.study.wording import points

_TASK = "majority"


class Source(NamedTuple):
    """The tables that `effect` is made of, by name, and the figure that shows it (a pattern)."""

    tables: tuple[str, ...]
    figure: str
    effect: Callable[..., Effect | None]


class Slope(NamedTuple):
    effect: float
    low: float
    high: float


def read_effect(notebook: str, folder: Path) -> Effect | None:
    """The effect of a notebook; None where its tables are not there, or hold no such contrast.

    Args:
        notebook: stem, one of `SOURCES`.
        folder: with the profile's tables.
    """
    source, number = SOURCES[notebook], notebook.split("_")[0]
    paths = [folder / f"{number}_{name}.csv" for name in source.tables]
    if not all(path.is_file() for path in paths):
        return None
    return source.effect(*map(pd.read_csv, paths))


def find_figure(notebook: str, folder: Path) -> Path | None:
    """The figure of a notebook's finding, if there is one."""
    number = notebook.split("_")[0]
    return min(folder.glob(f"{number}_{SOURCES[notebook].figure}.png"), default=None)


def per_doubling(frame: pd.DataFrame, x: str, *, within: Sequence[str] = ()) -> Slope | None:
    """Accuracy (majority) gained per doubling of `x`, by one straight line for all settings.

    Args:
        frame: long form, of own or of published runs.
        x: column of positive numbers.
        within: columns whose settings have levels of their own; those that the frame lacks are
            left out.

    Returns:
        The slope with its t interval, blank where no run is left to tell the spread; None where
        `x` does not vary within a setting.
    """
    runs = frame[frame["task"] == _TASK]
    runs = runs.drop_duplicates("id") if "id" in runs else runs
    settings = runs[[name for name in within if name in runs]].astype(str).agg(" ".join, axis=1)
    levels = pd.get_dummies(settings if len(settings) else pd.Series(dtype=str), dtype=float)
    design = levels.assign(doubling=np.log2(runs[x]))
    if len(runs) < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fit = sm.OLS(runs["accuracy"], design).fit()
    low, high = np.nan, np.nan
    if fit.df_resid > 0:
        low, high = fit.conf_int(1 - CONFIDENCE).loc["doubling"]
    return Slope(*map(float, (fit.params["doubling"], low, high)))


def _slope_effect(
    runs: pd.DataFrame,
    published: pd.DataFrame,
    x: str,
    compared: str,
    *,
    within: Sequence[str],
    direction: int | None = None,
) -> Effect | None:
    ours, theirs = (per_doubling(each, x, within=within) for each in (runs, published))
    return ours and Effect(compared, *ours, theirs.effect, direction)


def _object_size(runs: pd.DataFrame) -> Effect | None:
    published = published_accuracy("O2I_datasize", canvas=3000)
    compared = "per doubling of the digit's side"
    within = ("canvas", "n_train", "design")
    effect = _slope_effect(runs, published, "digit_size", compared, within=within)
    gain = per_doubling(runs, "n_train", within=("canvas", "digit_size", "n_noise"))
    theirs = per_doubling(published, "n_train", within=("digit_size",))
    if effect is None or gain is None:
        return effect
    return effect._replace(
        note=f"A doubling of the training set gives {points(gain.effect)}, published "
        f"{points(theirs.effect)}."
    )


def _training_set(runs: pd.DataFrame) -> Effect | None:
    published = published_accuracy("Dataset_Size")
    within = ("canvas", "digit_size", "n_noise")
    compared = "per doubling of the training set"
    return _slope_effect(runs, published, "n_train", compared, within=within)


def _noise_count(runs: pd.DataFrame) -> Effect | None:
    published = published_accuracy("Noise_Size")
    within = ("canvas", "digit_size", "n_train")
    compared = "per doubling of the noise objects"
    effect = _slope_effect(runs, published, "n_noise", compared, within=within, direction=0)
    theirs = 100 * published.loc[published["task"] == _TASK, "accuracy"]
    note = f"All published runs reach {theirs.min():.1f} to {theirs.max():.1f} %, few or many."
    return effect and effect._replace(note=note)


def published_row(table: pd.DataFrame) -> pd.Series | None:
    """Of an arm table the arm (majority) with the largest published effect, whatever ours is.

    Where no arm was published it is the last one; None where no arm has an effect.
    """
    rows = table[(table["task"] == _TASK) & table["effect"].notna()]
    if rows.empty:
        return None
    theirs = rows["published_effect"] if "published_effect" in rows else pd.Series(dtype=float)
    theirs = theirs.dropna()
    return rows.loc[theirs.abs().idxmax() if len(theirs) else rows.index[-1]]


def _of_row(row: pd.Series, compared: str, **more: object) -> Effect:
    bounds = row[["effect", "effect_low", "effect_high"]].astype(float)
    return Effect(compared, *bounds, **{"published": row.get("published_effect", np.nan)} | more)


def _losses(summary: pd.DataFrame) -> Effect | None:
    row = published_row(summary)
    if row is None:
        return None
    return _of_row(row, f"{row['arm']}, against no extra loss ({row['digit_size']} px)")


def _masking(summary: pd.DataFrame, loss: pd.DataFrame) -> Effect | None:
    row = published_row(summary[summary["arm"].str.endswith(": both")])
    if row is None:
        return None
    masking = row["arm"].removesuffix(": both")
    part = loss[(loss["masking"] == masking) & (loss["n_train"] == row["n_train"])].iloc[0]
    note = f"Masked in training alone {points(part['training'])}; due to evaluation "
    note += f"{points(part['due_to_evaluation'])}."
    compared = f"{masking}, in training and evaluation, against no masking"
    return _of_row(row, compared, note=note)


def _against_first(table: pd.DataFrame) -> Effect | None:
    row = published_row(table)
    if row is None:
        return None
    return _of_row(row, f"{row['arm']}, against {table['arm'].iloc[0]}")


def _frozen(effects: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Effect | None:
    """A frozen encoder against the trained one; with ImageNet weights where that was run."""
    kinds = runs.drop_duplicates(["comparison", "arm"])[["comparison", "arm", "frozen", "weights"]]
    rows = effects[effects["task"] == _TASK].merge(kinds, on=["comparison", "arm"])
    rows = rows[rows["frozen"] & rows["effect"].notna()]
    if rows.empty:
        return None
    has_weights = rows["weights"].notna() & (rows["weights"] != "none")
    row = rows.loc[has_weights.idxmax()]  # the first that has them, else the first
    fixed = published[(published["task"] == _TASK) & published["complete"]]
    theirs = fixed.loc[fixed["encoder"] == "resnet50", "effect"].mean()
    note = "The published encoder was frozen with ImageNet weights"
    note += "." if has_weights.any() else ", ours with random ones: only direction compares."
    compared = f"{row['arm']}, against the trained encoder"
    return _of_row(row, compared, published=float(theirs), note=note)


def _patch_size(trends: pd.DataFrame) -> Effect | None:
    is_theirs = trends["comparison"].str.startswith("published")
    ours, theirs = trends[~is_theirs], trends[is_theirs]
    if ours.empty:
        return None
    row = ours.iloc[0]
    published = theirs.loc[theirs["runs"].idxmax(), "effect"] if len(theirs) else np.nan
    compared = f"per halving of the patch's side, {row['comparison']}"
    return _of_row(row, compared, published=float(published), direction=1)


def _attention(table: pd.DataFrame) -> Effect:
    above = table["roi_recall"] - table["roi_recall_random"]
    low, high = t_interval(above) if len(above) > 1 else (np.nan, np.nan)
    mass = table["attention_on_digits"] / table["attention_on_digits_random"]
    note = f"Attention on digits is {mass.min():.1f} to {mass.max():.1f} times their share."
    compared = "digits kept, against random patches"
    return Effect(compared, float(above.mean()), low, high, direction=1, note=note)


def _memory(sides: pd.DataFrame, reach: pd.DataFrame) -> Effect | None:
    """How memory grows with the area: the exponent of IPS less that of the whole image."""
    done = sides[(sides["step"] == "train") & sides["step_mb"].gt(0)]
    done = done[done["way"].isin(["ips", "whole"])]
    ends = reach[reach["step"] == "train"].set_index("way")
    if done.groupby("way")["side"].nunique().reindex(["ips", "whole"]).fillna(0).min() < 2:
        return None
    is_ips, area = done["way"].eq("ips").astype(float), 2 * np.log(done["side"])
    design = sm.add_constant(pd.DataFrame({"ips": is_ips, "area": area, "less": is_ips * area}))
    fit = sm.OLS(np.log(done["step_mb"]), design).fit()
    low, high = fit.conf_int(1 - CONFIDENCE).loc["less"] if fit.df_resid > 0 else (np.nan, np.nan)
    ips = ends.loc["ips"]
    note = (
        f"A training step of IPS takes {ips['step_mb_first']:.0f} MB at {ips['first']:.0f} px and "
        f"{ips['step_mb_last']:.0f} MB at {ips['last']:.0f} px. Memory that does not depend on the "
        f"image has exponent 0; that of IPS is {fit.params['area'] + fit.params['less']:.2f}."
    )
    compared = "exponent of memory in the area, IPS less whole image"
    effect = float(fit.params["less"])
    return Effect(compared, effect, low, high, direction=-1, note=note, unit="exponent")


SOURCES: Mapping[str, Source] = {
    "01_o2i_datasize": Source(("runs",), "accuracy", _object_size),
    "02_semantic_diversity": Source(("summary",), "accuracy_*", _losses),
    "03_attention_masking": Source(("summary", "loss"), "phases_*", _masking),
    "04_dataset_size": Source(("runs",), "threshold", _training_set),
    "05_noise_size": Source(("runs",), "accuracy", _noise_count),
    "06_digit_thickness": Source(("whole_pixels",), "accuracy", _against_first),
    "07_backbones": Source(("effects", "runs", "published"), "arms_0", _frozen),
    "08_patch_size": Source(("trends",), "ratio", _patch_size),
    "09_attention_maps": Source(("attention",), "maps", _attention),
    "10_noise_generator": Source(("contrast",), "accuracy", _against_first),
    "13_efficiency": Source(("sides", "reach"), "sides", _memory),
}
