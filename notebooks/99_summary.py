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
# here: every number is made of tables that the other notebooks of this profile have saved, and
# take-off of the profile's records.
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
import pandas as pd
from IPython.display import Markdown, display

from ipslib.arithmetic import CURRENT, version_of
from ipslib.commands.notebooks import read_source, title_of
from ipslib.datasets.registry import run_config
from ipslib.runs.profiles import list_notebooks
from ipslib.study.finding_figures import effects_figure, small_picture
from ipslib.study.finding_sources import SOURCES, find_figure, read_effect
from ipslib.study.findings import (
    AGREES,
    DISAGREES,
    OPEN,
    Finding,
    findings_in_view,
    findings_table,
    in_words,
)
from ipslib.study.published import published_accuracy
from ipslib.study.published_configs import CATEGORIES
from ipslib.study.session import Study
from ipslib.study.statistics import correlation
from ipslib.study.tables import long_form, show

study = Study("99_summary", profile, overrides=overrides)
study

# %% [markdown]
# ## All findings
# Effects are on accuracy in the task majority, in points, unless they say otherwise. Published
# effects are those of the published runs at their own scale.

# %%
questions = {path.stem: title_of(read_source(path))[5:] for path in list_notebooks()}
findings, not_run = [], []
for notebook in sorted(SOURCES.keys() & questions.keys()):
    effect = read_effect(notebook, study.layout.tables)
    if effect is None:
        not_run.append(notebook)
    else:
        findings.append(Finding(notebook, questions[notebook], effect))
study.save_table("findings", findings_table(findings))
show(findings_in_view(findings)) if findings else Markdown("No notebook has been run yet.")

# %%
if findings:
    study.save_figure("effects", effects_figure(findings))

# %% [markdown]
# ## One by one
# *Page* and *notebook* lead to what was executed, with all tables, figures and limits.


# %%
def links(notebook: str) -> str:
    return f"{notebook}: [page]({notebook}.html), [notebook]({notebook}.ipynb)"


for finding in findings:
    lines = [f"### {finding.question}", in_words(finding.effect), finding.effect.note]
    display(Markdown("\n\n".join(filter(None, [*lines, links(finding.notebook)]))))
    figure = find_figure(finding.notebook, study.layout.figures)
    if figure:
        display(small_picture(figure))

# %% [markdown]
# ## Not answered here

# %%
others = sorted(questions.keys() - SOURCES.keys() - {study.notebook})
has_page = [each for each in others if (study.layout.notebooks / f"{each}.html").is_file()]
lines = [f"- {questions[each]} Not run in this profile, or with too few runs." for each in not_run]
lines += [f"- {questions[each]} Shown, not measured: {links(each)}." for each in has_page]
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
records = [each for each in study.store.all() if version_of(each) == CURRENT]
records = [each for each in records if "digit_size" in each["config"]]
ours, rows = long_form(records) if records else logs[:0], []
for name, frame in {"published": logs, "ours": ours}.items():
    runs = frame[frame["task"] == "majority"]
    setting = [each for each in (*run_config().flat(), "epochs_run") if each in frame]
    setting.remove("seed")
    for over, within in {"all settings": [], "same setting": setting}.items():
        found = correlation(runs, "take_off_epoch", "accuracy", within=within)
        shares = {"runs": len(runs), "took_off": runs["took_off"].mean()}
        rows.append({"whose": name, "over": over} | shares | found._asdict())
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
verdicts = [finding.effect.verdict for finding in findings]
named = {
    kind: ", ".join(f.notebook for f in findings if f.effect.verdict == kind) or "none"
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
