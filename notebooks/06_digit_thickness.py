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
# # 06 - How thick may noise be before it hides the digits?
#
# **Claim** (arXiv 2412.11237): the more alike the strokes of noise and digits are in thickness,
# the less the network generalises, *gradually* until it fails. What is varied is the thickness of
# the noise; the digits stay as they are.
#
# **Published**: widths of 1.4 to 2.6 px on noise of 28 px, up to three runs each, and one run at
# 5 px. Accuracy falls to chance between 1.8 and 2.0 px. But widths were cut to whole pixels before
# drawing: 1.4 to 1.8 all drew 1 px and 2.0 to 2.6 all drew 2 px, so these are two settings.
#
# **What would refute it**: with strokes as wide as asked for, no fall; or a fall that goes on where
# noise is thicker than digits, which speaks for thickness itself and not for likeness.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
true_widths = [1.925, 2.5, 5.0]  # px, drawn as asked for; the first is the reference
pixel_widths = [1.925, 2.6]  # px asked for, cut to whole pixels as published
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
n_measured = 100  # noise patterns, and digits, whose strokes are measured
settings = {}  # fields of RunConfig that all these runs share, where the base has others
also = []  # runs off this grid, each as fields of RunConfig
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.study import arm_finding, published_row
from ipslib.study.arm_figures import arm_dots, attention_against_accuracy
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.contrast import found_in_words, table_against
from ipslib.study.gallery import image_row
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.stroke_figures import accuracy_by_stroke, published_by_width
from ipslib.study.strokes import half_loss_width, noise_patterns, stroke_table
from ipslib.study.tables import long_form, show, summarise
from ipslib.study.wording import effect_in_words, points

study = Study("06_digit_thickness", profile, overrides=overrides)
study

# %% [markdown]
# ## The strokes
# An arm is a way of drawing and a width: *true* as asked for, anti-aliased, or *whole* as
# published, with the width that was asked for behind it.

# %%
true = {f"true {w:g} px": w for w in true_widths}
whole = {f"whole {int(w)} px ({w:g})": w for w in pixel_widths}
arms = {arm: {"noise": "bezier", "stroke_width": w} for arm, w in true.items()}
arms |= {arm: {"noise": "bezier_pixel", "stroke_width": w} for arm, w in whole.items()}
arms = {arm: settings | fields for arm, fields in arms.items()}
patterns = {a: noise_patterns(study.config(**f).data, n_measured) for a, f in arms.items()}
digits = load_digits(study.base.data.digits, "test").images[:n_measured]
shown = {"a digit": digits} | patterns
titles = [arm.replace(" (", "\n(") for arm in shown]
columns = min(len(shown), 7)
study.save_figure("strokes", image_row([i[0] for i in shown.values()], titles, columns=columns))

# %% [markdown]
# How wide they are is measured on the drawn images, digits and noise alike: ink over length, in px
# at 28 px. *Low* and *high* are the quartiles over images.

# %%
strokes = stroke_table({"digits": digits} | patterns)
study.save_table("strokes", strokes)
measured = strokes.set_index("arm")
digit = measured.loc["digits"]
show(strokes.round(2))

# %% [markdown]
# ## What was published
# Canvas 1500 x 1500 px, 800 noise objects, 2000 images, 50 epochs; runs that stopped early left
# out. *As drawn* places each run at the width that its strokes really had.

# %%
published = published_accuracy("Digit_Thickness", canvas=1500)
asked = sorted(published["stroke_width"].unique())
pixels = {int(w): study.config(noise="bezier_pixel", stroke_width=int(w)).data for w in asked}
drawn = stroke_table({px: noise_patterns(each, n_measured) for px, each in pixels.items()})
drawn = drawn.set_index("arm")["stroke"]
drawn = {w: drawn[int(w)] for w in asked}
study.save_figure("published", published_by_width(published, drawn, digit))

# %% [markdown]
# ## The runs

# %%
runs = run_arms(study, arms, seeds)
frame = runs.frame.assign(stroke=runs.frame["arm"].map(measured["stroke"]))
shared = ", ".join(f"{name} {value}" for name, value in settings.items())
Markdown(study.made_of(runs.records) + (f" All with {shared}." if shared else ""))

# %% [markdown]
# ## The tables
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row.

# %%
same_scale = profile == "paper" and not overrides
alike = {arm: [a for a in asked if int(a) == int(w)] for arm, w in whole.items()}
beside = published_arms(published, {arm: {"stroke_width": ws} for arm, ws in alike.items() if ws})
table = arm_table(frame)
study.save_table("runs", frame)
study.save_table("summary", table.merge(strokes, on="arm"))
show(headline(table))

# %% [markdown]
# Whole pixels among themselves, beside the published runs: the mean of all whose strokes were as
# many pixels wide. In `quick` these have another scale, so compare effects.

# %%
steps = table_against(frame, next(iter(whole)), published=beside, same_scale=same_scale)
steps = steps[steps["arm"].isin(whole)]
study.save_table("whole_pixels", steps)
show(headline(steps))

# %% [markdown]
# ## The figures
# Accuracy against the width of the noise as it was measured, the digits' own width marked. Marks
# are means with their 95 % interval.

# %%
theirs = beside.assign(stroke=beside["stroke_width"].map(drawn)) if same_scale else None
study.save_figure("accuracy", accuracy_by_stroke(frame, digit, published=theirs))

# %% [markdown]
# The same, an arm a row.

# %%
study.save_figure("arms", arm_dots(frame, published=beside, same_scale=same_scale))

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(frame))

# %% [markdown]
# Published runs off this grid, if any were asked for:

# %%
if also:
    off_grid = long_form(study.run([study.config(**fields) for fields in also]))
    study.save_table("off_grid", off_grid)
    table_off_grid = show(summarise(off_grid, by=["canvas", "n_train", "stroke_width"]))
table_off_grid if also else Markdown("None in this profile.")

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
compared = f"{{arm}}, against {steps['arm'].iloc[0]}"
study.finding(arm_finding(published_row(steps), compared), figure="accuracy")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout. *The match* is the true width nearest to the digits' own. If it
# is likeness that hides the digits, noise thinner and noise thicker than the match both do better
# than the match; if it is thickness, thicker noise does worse still.

# %%
majority = table[table["task"] == "majority"].set_index("arm").join(measured)
step = steps[steps["task"] == "majority"].set_index("arm")
chance, one = step["chance"].iloc[0], step.index[0]
two = next((arm for arm, w in whole.items() if int(w) == 2), None)
said = "not run here, or nothing was learned at 1 px"
if two and step.loc[one, "mean"] > chance:
    ours, theirs = step.loc[two, ["effect", "published_effect"]]
    left = 1 + ours / (step.loc[one, "mean"] - chance)
    left_theirs = 1 + theirs / (step.loc[one, "published"] - chance)
    said = (
        f"{effect_in_words(steps, two)}, published {points(theirs)}. Of what 1 px has above "
        f"chance, 2 px keep {100 * left:.0f} % (published {100 * left_theirs:.0f} %): the step "
        f"{'makes' if left < 0.5 else 'does not make'} learning fail here"
    )

# %%
curve = majority.loc[list(true)].sort_values("stroke")
thinnest, thickest = curve.index[0], curve.index[-1]
lost = half_loss_width(curve["stroke"], curve["mean"], chance=chance)
fall = f"at {lost:.1f} px (measured)" if lost else "nowhere between them"
match = (curve["stroke"] - digit["stroke"]).abs().idxmin()
from_match = table_against(frame, match)
of_majority = from_match[from_match["task"] == "majority"].set_index("arm")
ends = [arm for arm in (thinnest, thickest) if arm != match]
verdict = "Whether it is likeness or thickness these runs cannot tell."
if len(ends) == 2:
    low, high = (of_majority[name] for name in ("effect_low", "effect_high"))
    if (low[ends] > 0).all():
        verdict = "Both ends do better than the match: it is likeness that hides the digits."
    elif high[thickest] < 0:
        verdict = "Thicker noise does worse than the match: it is thickness rather than likeness."

# %%
ends = "; ".join(f"*{arm}* {effect_in_words(from_match, arm)}" for arm in ends)
Markdown(f"""
1. The digits' strokes are {digit["stroke"]:.1f} px wide (middle half {digit["stroke_low"]:.1f} to
   {digit["stroke_high"]:.1f}). The {len(asked)} published widths of noise drew
   {len(set(drawn.values()))}: {", ".join(f"{v:.1f}" for v in sorted(set(drawn.values())))} px as
   measured.
2. From 1 to 2 whole pixels: {said}.
3. With true widths of {", ".join(f"{w:g}" for w in sorted(true_widths))} px accuracy is
   {", ".join(f"{100 * mean:.0f}" for mean in curve["mean"])} %. Half of what the thinnest has above
   chance is lost {fall}.
4. Against the match, *{match}*: {ends or "nothing to compare"}. {verdict}
5. Finding, not reading: {found_in_words(frame[frame["task"] == "majority"])}.
6. {int((majority["mean"] > 2 * chance).sum())} of {len(majority)} arms reach twice chance. With
   {len(seeds)} seed{"s" if len(seeds) > 1 else ""} an arm, a single run that finds nothing decides
   an arm's mean.
""")

# %% [markdown]
# ## Limits
# - Width is not all that differs: thicker noise is also more ink.
# - Measured widths are means over strokes that cross themselves; a single pattern may be off by a
#   tenth and more. Digits differ among themselves far more than that.
# - Whole-pixel widths that are cut to the same pixel draw the same images: at one seed their runs
#   are one run, not repeats.
# - In `quick` a canvas holds few noise objects, and what needs hundreds of them cannot show.
# - Intervals are not corrected for the number of arms.
