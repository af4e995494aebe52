# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 99 - What did the study find?
#
# One claim a notebook, judged by the one contrast that its head states. Nothing is trained here:
# every number is as a notebook of this profile has stated it, and take-off is that of the profile's
# records.
#
# **Claim and published**: stated in each notebook. The verdict is on the claim; whether the effect
# has the sign of the published one stands apart. Levels belong to one canvas and one network.
#
# **How a claim is judged**: one effect on accuracy a training seed, so that no network counts twice
# and no spread is shared between settings. *Supports*, *contradicts*: the effect is not zero
# (paired t; from six seeds on flipped signs), on the claim's side or the other. *Equivalent to
# none*: it lies within 5 points (two one-sided t tests, of seeds whose runs all took off). Over all
# claims p values are by Holm's method, at 5 %. *Open*: neither; then the table says how many seeds
# it would take, at the spread that was seen, to decide it in four studies of five. One seed tells
# no spread, and fewer than three decide nothing.

# %% tags=["parameters"]
profile = "quick"  # whose tables and figures are read
overrides = {}  # any field of RunConfig, as in the other notebooks; no run is made here

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.lines import Line2D

from ipslib.commands.notebooks import read_source, title_of
from ipslib.config import ARITHMETIC, arithmetic_of
from ipslib.datasets.registry import run_config
from ipslib.runs.profiles import committed_overnight, list_notebooks
from ipslib.study import (
    CATEGORIES,
    DIAMOND,
    GREY,
    INK,
    OPEN,
    VERDICTS,
    Study,
    correlation,
    findings_table,
    load_findings,
    long_form,
    published_accuracy,
    read_together,
    show,
)

study = Study("99_summary", profile, overrides=overrides)
study

# %% [markdown]
# ## Overnight
# What the profile `overnight` found, at published noise densities and with five to ten seeds a
# setting: its committed results, whichever profile is summed up below.

# %%
committed = committed_overnight()
night = read_together(load_findings(committed.tables))
sources = ", ".join(sorted({each.source for each in night}))
shown = findings_table(night)
shown.insert(0, "", [each.notebook[:2] for each in night])
if profile == "overnight":
    told = Markdown("They are summed up below.")
elif night:
    told = show(shown, caption=sources)
else:
    told = Markdown("None are committed yet.")
told

# %% [markdown]
# ## All findings
# Effects are on accuracy in the task majority, in points, unless they say otherwise. *Took off*:
# runs of either side that learned anything. *Published* effects are those of the published runs at
# their own scale; *same* or *other* sign where both can be told.

# %%
questions = {path.stem: title_of(read_source(path))[5:] for path in list_notebooks()}
stated = [each for each in load_findings(study.layout.tables) if each.notebook in questions]
findings = read_together(stated)
words = findings_table(findings)
columns = ["notebook", "claim", "contrast", "unit", "direction", "took_off", "n", "effect"]
columns += ["low", "high", "sd", "none", "p", "published"]
table = pd.DataFrame([each._asdict() for each in findings], columns=columns)
table = table.assign(own_p=[each.p for each in stated], verdict=words["verdict"])
table = table.assign(published_sign=words["published sign"], seeds=words["seeds it would take"])
table.insert(1, "question", table["notebook"].map(questions))
names = {"low": "effect_low", "high": "effect_high", "published": "published_effect"}
study.save_table("findings", table.rename(columns=names))
words.insert(0, "", table["notebook"].str[:2])
show(words)

# %% [markdown]
# Those in points, with their 95 % interval; diamonds are the published effects.

# %%
COLOURS = dict(zip(VERDICTS, ("#2c8fa6", "#b5387c", "#c9a24b", "#8c8c8c"), strict=True))
rows = [each for each in findings if each.unit == "points"]
figure, ax = plt.subplots(figsize=(10, 1.2 + 0.42 * len(rows)))
for y, each in enumerate(rows):
    style = {"color": COLOURS[each.verdict], "lw": 2, "solid_capstyle": "butt"}
    ax.plot([100 * each.low, 100 * each.high], [y, y], **style)
    ax.plot(100 * each.effect, y, "o", ms=6, color=style["color"])
    ax.plot(100 * each.published, y + 0.25, **DIAMOND)
ax.axvline(0, color=GREY, lw=1)
ax.set_yticks(range(len(rows)), [f"{each.notebook[:2]}  {each.claim}" for each in rows])
ax.set(ylim=(max(len(rows), 1) - 0.5, -0.5), xlabel="effect (points)")
keys = [Line2D([], [], color=c, marker="o", lw=2, label=name) for name, c in COLOURS.items()]
keys.append(Line2D([], [], label="published, own scale", **DIAMOND))
figure.legend(handles=keys, loc="outside upper right", ncols=5, labelcolor=INK)
study.save_figure("effects", figure)

# %% [markdown]
# ## One by one
# *Page* and *notebook* lead to what was executed, with all tables, figures and limits.


# %%
def links(notebook: str) -> str:
    return f"{notebook}: [page]({notebook}.html), [notebook]({notebook}.ipynb)"


for i, each in enumerate(findings):
    display(Markdown(f"### {questions[each.notebook]}\n\n{links(each.notebook)}"))
    display(show(words.iloc[[i], 1:]))
    if each.note:
        display(Markdown(each.note))
    figure = study.layout.figures / each.figure
    if figure.is_file():
        display(Image(figure.read_bytes(), width=700, alt=figure.stem))

# %% [markdown]
# ## Not answered here
# Notebooks that this profile leaves to the night, that had too few runs, or that show and do not
# measure.

# %%
others = sorted(questions.keys() - {study.notebook} - {each.notebook for each in findings})
lines = []
for each in others:
    kept, where = committed.notebooks / f"{each}.ipynb", "Not run in this profile."
    if (study.layout.notebooks / kept.name).is_file():
        where = links(each)
    elif kept.is_file():
        path = Path(os.path.relpath(kept, study.layout.notebooks)).as_posix()
        where = f"{each}: [notebook of `overnight`]({path}), as committed"
    lines.append(f"- *{questions[each]}* {where}")
Markdown("\n".join(lines) or "Every notebook has its finding.")

# %% [markdown]
# ## Take-off
# Learning takes off suddenly, in every run at an epoch of its own, or never: from then on training
# accuracy lies above what a constant answer reaches by luck. How far that epoch explains where a
# run ends: Pearson's r of the epoch with test accuracy in the last one, on majority, over the `n`
# runs that took off. *Same setting*: over runs that differ by their seed alone, each setting's mean
# taken off. The published logs print one seed: their intervals are over repeats. Ours are the
# Megapixel MNIST records of this profile by today's arithmetic.

# %%
logs = pd.concat([published_accuracy(category) for category in CATEGORIES])
logs = logs[~logs["note"].str.contains("same curves")].drop_duplicates(["log", "task"])
records = [each for each in study.store.all() if arithmetic_of(each) == ARITHMETIC]
records = [each for each in records if "digit_size" in each["config"]]
ours, rows = long_form(records) if records else logs[:0], []
for name, frame in {"published": logs, "ours": ours}.items():
    runs = frame[frame["task"] == "majority"]
    setting = [each for each in (*run_config().flat(), "epochs_run") if each in frame]
    setting.remove("seed")
    for over, within in {"all settings": [], "same setting": setting}.items():
        found = correlation(runs, "take_off_epoch", "accuracy", within=within)
        shares = {"runs": len(runs), "took_off": runs["took_off"].mean()}
        rows.append({"whose": name, "over": over} | shares | found)
explained = pd.DataFrame(rows)
study.save_table("take_off", explained)
show(explained)

# %%
lines = [
    f"- *{row.whose}, {row.over}*: over {row.n} runs that took off, the epoch of take-off explains "
    f"{100 * row.r**2:.0f} % of the variance (r from {row.r_low:.2f} to {row.r_high:.2f})."
    for row in explained.dropna().itertuples()
]
Markdown("\n".join(lines) or "Too few runs took off.")

# %% [markdown]
# ## Reading

# %%
named = {
    kind: ", ".join(each.notebook for each in findings if each.verdict == kind) or "none"
    for kind in VERDICTS
}
lines = [f"{i}. *{kind}*: {named[kind]}." for i, kind in enumerate(VERDICTS, start=1)]
lost = sum(each.verdict == OPEN != own.verdict for each, own in zip(findings, stated, strict=True))
signs = [each.published_sign for each in findings]
Markdown(
    "\n".join(lines)
    + f"""
5. Open is no evidence of no effect. By themselves {lost} of the open ones would have been decided;
   among {len(findings)} claims luck may do as much.
6. The effect has the published sign in {signs.count("same")} of the
   {len(signs) - signs.count("")} findings where both can be told.
"""
)

# %% [markdown]
# ## Limits
# - One contrast stands for a notebook: of several published arms the one with the largest published
#   effect, whatever ours is. The others are in the notebook.
# - Changes along sizes and counts lay one straight line through all runs; accuracy that has reached
#   its ceiling flattens them, so that only the direction compares.
# - Intervals are of training seeds and of the settings run, and each stands for itself: only p
#   values are Holm's. Published runs are mostly one a setting, print one seed, and have none.
# - Where runs may fail to take off, an interval knows nothing of failures rarer than were seen;
#   each notebook shows what its few runs leave room for.
# - Findings share runs, those of the reference above all. Holm's method holds nevertheless, but the
#   luck of these seeds is in many of them.
# - Runs of `quick` have what notebook 17 found to let every one take off (novelty, moved images),
#   which published runs had not, nor have those of `overnight`. A claim that was one about take-off
#   may end otherwise there.
# - Support at another scale is no proof at the published one, nor is contradiction.
