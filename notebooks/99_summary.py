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
# One effect a notebook, with its 95 % interval and what was published of it. Nothing is trained
# here: every number is as a notebook of this profile has stated it, and take-off is that of the
# profile's records.
#
# **Claim and published**: stated in each notebook; here only the direction is compared, because
# levels of accuracy belong to one canvas and one network.
#
# **What would refute it**: a finding *disagrees* where the whole interval lies on the other side of
# zero than the published effect. An interval that holds zero cannot tell.

# %% tags=["parameters"]
profile = "quick"  # whose tables and figures are read
overrides = {}  # any field of RunConfig, as in the other notebooks; no run is made here

# %%
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.lines import Line2D

from ipslib.commands.notebooks import read_source, title_of
from ipslib.config import ARITHMETIC, arithmetic_of
from ipslib.datasets.registry import run_config
from ipslib.runs.profiles import list_notebooks
from ipslib.study import (
    AGREES,
    CATEGORIES,
    DIAMOND,
    DISAGREES,
    GREY,
    INK,
    OPEN,
    Study,
    correlation,
    findings_table,
    load_findings,
    long_form,
    published_accuracy,
    show,
)

study = Study("99_summary", profile, overrides=overrides)
study

# %% [markdown]
# ## All findings
# Effects are on accuracy in the task majority, in points, unless they say otherwise. Published
# effects are those of the published runs at their own scale.

# %%
questions = {path.stem: title_of(read_source(path))[5:] for path in list_notebooks()}
findings = [each for each in load_findings(study.layout.tables) if each.notebook in questions]
columns = ["notebook", "compared", "unit", "effect", "low", "high", "published", "verdict"]
rows = [each._asdict() | {"verdict": each.verdict} for each in findings]
table = pd.DataFrame(rows, columns=columns)
table.insert(1, "question", table["notebook"].map(questions))
names = {"low": "effect_low", "high": "effect_high", "published": "published_effect"}
study.save_table("findings", table.rename(columns=names))

# %%
shown = findings_table(findings).drop(columns="note")
shown.insert(0, "question", table["question"])
show(shown)

# %% [markdown]
# Those in points, with their 95 % interval; diamonds are the published effects.

# %%
COLOURS = {AGREES: "#2c8fa6", DISAGREES: "#b5387c", OPEN: "#8c8c8c"}
rows = [each for each in findings if each.unit == "points"]
figure, ax = plt.subplots(figsize=(10, 1.2 + 0.42 * len(rows)))
for y, each in enumerate(rows):
    style = {"color": COLOURS[each.verdict], "lw": 2, "solid_capstyle": "butt"}
    ax.plot([100 * each.low, 100 * each.high], [y, y], **style)
    ax.plot(100 * each.effect, y, "o", ms=6, color=style["color"])
    ax.plot(100 * each.published, y + 0.25, **DIAMOND)
ax.axvline(0, color=GREY, lw=1)
ax.set_yticks(range(len(rows)), [f"{each.notebook[:2]}  {each.compared}" for each in rows])
ax.set(ylim=(max(len(rows), 1) - 0.5, -0.5), xlabel="effect (points)")
keys = [Line2D([], [], color=c, marker="o", lw=2, label=name) for name, c in COLOURS.items()]
keys.append(Line2D([], [], label="published, own scale", **DIAMOND))
figure.legend(handles=keys, loc="outside upper right", ncols=4, labelcolor=INK)
study.save_figure("effects", figure)

# %% [markdown]
# ## One by one
# *Page* and *notebook* lead to what was executed, with all tables, figures and limits.


# %%
def links(notebook: str) -> str:
    return f"{notebook}: [page]({notebook}.html), [notebook]({notebook}.ipynb)"


for each in findings:
    display(Markdown(f"### {questions[each.notebook]}\n\n{links(each.notebook)}"))
    display(show(findings_table([each])))
    figure = study.layout.figures / each.figure
    if figure.is_file():
        display(Image(figure.read_bytes(), width=700, alt=figure.stem))

# %% [markdown]
# ## Not answered here
# Notebooks that were not run in this profile, had too few runs, or show and do not measure.

# %%
others = sorted(questions.keys() - {study.notebook} - {each.notebook for each in findings})
was_run = {each for each in others if (study.layout.notebooks / f"{each}.ipynb").is_file()}
lines = [
    f"- {questions[each]} {links(each) if each in was_run else 'Not run in this profile.'}"
    for each in others
]
Markdown("\n".join(lines) or "Every notebook has its finding.")

# %% [markdown]
# ## Take-off
# Learning takes off suddenly, in every run at an epoch of its own, or never: from then on training
# accuracy lies above what a constant answer reaches by luck. How far that epoch explains where a
# run ends: Pearson's r of the epoch with test accuracy in the last one, on majority, over the `n`
# runs that took off. *Same setting*: over runs that differ by their seed alone, each setting's mean
# taken off. Ours are the Megapixel MNIST records of this profile by today's arithmetic.

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
verdicts = [each.verdict for each in findings]
named = {
    kind: ", ".join(each.notebook for each in findings if each.verdict == kind) or "none"
    for kind in (AGREES, DISAGREES, OPEN)
}
Markdown(f"""
1. Of {len(findings)} findings {verdicts.count(AGREES)} agree with the published direction:
   {named[AGREES]}.
2. {verdicts.count(DISAGREES)} disagree: {named[DISAGREES]}.
3. {verdicts.count(OPEN)} cannot be told: {named[OPEN]}. That is no evidence of no effect: more
   seeds would narrow the intervals.
""")

# %% [markdown]
# ## Limits
# - One effect stands for a notebook: of several published arms the one with the largest published
#   effect, whatever ours is. The others are in the notebook.
# - Slopes (per doubling) lay one straight line through all runs; accuracy that has reached its
#   ceiling flattens them, so that only the direction compares.
# - Intervals are of training seeds and of the settings run; the published runs are mostly one a
#   setting and have none. They are not corrected for the number of findings.
# - An agreement at another scale is no proof at the published one, nor is a disagreement.
