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
# here: every number is made of tables that the other notebooks of this profile have saved.
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
from IPython.display import Markdown, display

from ipslib.commands.notebooks import read_source, title_of
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
from ipslib.study.session import Study
from ipslib.study.tables import show

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
