"""Masking in training, in evaluation, or in both: what each costs, told from the same networks.

Masking in evaluation changes no weight, so that a network trained once can be asked with and
without it; networks that were never masked in training can be asked under masks.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ipslib.config import ModelConfig
from ipslib.runs.records import RecordStore
from ipslib.study.arms import ArmRuns
from ipslib.study.figures import DIAMOND, GREY, row_legend
from ipslib.study.remeasure import remeasure
from ipslib.study.tables import long_form

PHASES = ("training", "evaluation", "both")  # where masks act; both: as published
_MEAN = {"marker": "|", "linestyle": "none", "markersize": 15, "markeredgewidth": 2}


def mask_phases(
    store: RecordStore, runs: ArmRuns, maskings: Mapping[str, Mapping[str, object]]
) -> pd.DataFrame:
    """Evaluate every masked arm's networks with and without masks, the reference's with them.

    Args:
        store: where the weights lie; what needs weights that are not there is left out.
        runs: of `run_arms`: first the reference, which masks nothing, then the masked arms.
        maskings: `{arm: its mask_ fields}`.

    Returns:
        A long form with the reference first, then the arms `{arm: phase}`; columns `masking` and
        `phase` hold the two apart, blank for the reference.
    """
    ids = runs.frame.groupby("arm")["id"].unique()
    of_arm = {arm: [r for r in runs.records if r["id"] in own] for arm, own in ids.items()}
    reference = runs.frame["arm"].iloc[0]
    parts = [runs.frame[runs.frame["arm"] == reference].assign(masking=None, phase=None)]
    for masking, fields in maskings.items():
        masked, plain = of_arm[masking], of_arm[reference]
        asked = {
            "training": remeasure(store, masked, mask_in_eval=False),
            "evaluation": remeasure(store, plain, **dict(fields) | {"mask_in_eval": True}),
            "both": remeasure(store, masked, mask_in_eval=True),
        }
        for phase, records in asked.items():
            if records:
                name = {"arm": f"{masking}: {phase}", "masking": masking, "phase": phase}
                parts.append(long_form(records).assign(**name))
    return pd.concat(parts, ignore_index=True)


def phase_effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy less that of the reference with the same seed, one row per masking, phase, seed and
    task in a column `effect`.

    Args:
        frame: of `mask_phases`.
    """
    is_reference = frame["masking"].isna()
    reference = frame[is_reference].set_index(["seed", "task"])["accuracy"]
    effects = frame.loc[~is_reference, ["masking", "phase", "seed", "task", "accuracy"]]
    keys = pd.MultiIndex.from_frame(effects[["seed", "task"]])
    effects["effect"] = effects.pop("accuracy") - reference.reindex(keys).to_numpy()
    return effects.reset_index(drop=True)


def phase_table(effects: pd.DataFrame, task: str = "majority") -> pd.DataFrame:
    """Mean effect of each masking by phase, and `due_to_evaluation`: both less training.

    Args:
        effects: of `phase_effects`.
    """
    rows = effects[effects["task"] == task]
    means = rows.groupby(["masking", "phase"], sort=False)["effect"].mean().unstack()
    means = means.reindex(index=rows["masking"].unique(), columns=PHASES)
    means["due_to_evaluation"] = means["both"] - means["training"]
    return means.rename_axis(columns=None).reset_index()


def survival(p: float, model: ModelConfig, n_patches: int) -> float:
    """The chance that a patch which is always among the K best outlives a masked selection.

    It faces a drop with probability p in every iteration from its own on; its place among the N
    patches is random.
    """
    later = np.maximum(np.arange(n_patches) - model.memory_size, 0)
    iteration = later // model.iter_size  # the first M face them all
    return float(((1 - p) ** (iteration.max() + 1 - iteration)).mean())


def phase_dots(
    effects: pd.DataFrame,
    *,
    published: Mapping[str, float] | None = None,
    same_scale: bool = False,
    task: str = "majority",
) -> Figure:
    """Draw each masking's effects by phase: a dot a seed, a bar their mean.

    Args:
        effects: of `phase_effects`.
        published: `{masking: published effect}`, of masking in both phases.
        same_scale: the published runs have our settings; the legend says so where not.
        task: whose accuracy.
    """
    rows = effects[effects["task"] == task].assign(points=lambda each: 100 * each["effect"])
    maskings = list(rows["masking"].unique())
    figure, ax = plt.subplots(figsize=(8, 1.3 + 0.62 * len(maskings)))
    colours = dict(zip(PHASES, sns.color_palette("colorblind", 3), strict=True))
    along = {"x": "points", "y": "masking", "hue": "phase", "hue_order": PHASES, "legend": False}
    sns.stripplot(rows, dodge=True, jitter=False, palette=colours, size=5, ax=ax, **along)
    means = {"errorbar": None, "dodge": 0.8 * (1 - 1 / len(PHASES)), "palette": colours}
    sns.pointplot(rows, ax=ax, **means, **along, **_MEAN)
    known = {name: value for name, value in (published or {}).items() if name in maskings}
    lowest = 0.8 / len(PHASES)  # the place of the last phase
    ax.plot(
        [100 * value for value in known.values()],
        [maskings.index(name) + lowest for name in known],
        zorder=5,
        **DIAMOND,
    )
    ax.axvline(0, color=GREY, linewidth=1.1)
    ax.grid(axis="x")
    ax.set(xlabel=f"change in accuracy on {task} against no masking (points)", ylabel="")
    keys = [
        Line2D([], [], ls="", marker="o", ms=6, color=colour, label=f"masked in {phase}")
        for phase, colour in colours.items()
    ]
    if known:
        scale = "" if same_scale else ", at its own scale"
        keys.append(Line2D([], [], label=f"published (both){scale}", **DIAMOND))
    row_legend(figure, keys)
    return figure
