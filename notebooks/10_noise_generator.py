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
# # 10 - Is Bezier noise harder than the original lines?
#
# **Claim** (arXiv 2412.11237): Bezier strokes replace the straight lines of the original Megapixel
# MNIST (Katharopoulos and Fleuret, arXiv 1905.03711) as more adverse noise, nearer to digits.
#
# **Published**: three runs an arm on canvases of 3000 x 3000 px, of which two an arm are complete,
# and one of the Bezier runs keeps 100 patches where the others keep 50. The Bezier strokes were
# drawn one whole pixel wide.
#
# **What would refute it**: accuracy among Bezier strokes no lower than among lines.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
noises = ["bezier", "bezier_pixel", "line"]  # the first is the reference
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
n_measured = 100  # noise patterns, and digits, whose ink and strokes are measured
n_transfer = 300  # test images that each network meets of each noise
image = 0  # which test image is shown
settings = {}  # fields of RunConfig that all these runs share, where the base has others
also = []  # published runs off this design, each as fields of RunConfig
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import matplotlib.pyplot as plt
import seaborn as sns
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.study import arm_finding, published_row
from ipslib.study.arm_figures import arm_dots, attention_against_accuracy
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.contrast import found_in_words, table_against
from ipslib.study.gallery import example_row, image_row
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.strokes import noise_patterns, stroke_table
from ipslib.study.tables import long_form, show, summarise
from ipslib.study.transfer import transfer, transfer_map
from ipslib.study.wording import effect_in_words, points

study = Study("10_noise_generator", profile, overrides=overrides)
study

# %% [markdown]
# ## The two noises
# The same test image with each noise: digits, outlined, are the same and lie in the same places.

# %%
width = study.config(**settings).data.stroke_width
names = {
    "bezier_pixel": f"Bezier, {int(width)} whole px",
    "bezier": f"Bezier, true {width:g} px",
    "line": "lines",
}
arms = {names[noise]: settings | {"noise": noise} for noise in noises}
data = {arm: study.config(**fields).data for arm, fields in arms.items()}
examples = [MegapixelMNIST(each, "test") for each in data.values()]
study.save_figure("data", example_row(examples, list(data), image))

# %% [markdown]
# Five patterns of each, and five digits.

# %%
digits = load_digits(study.base.data.digits, "test").images[:n_measured]
kinds = {"digits": digits} | {arm: noise_patterns(each, n_measured) for arm, each in data.items()}
tiles = [(name, images[i]) for name, images in kinds.items() for i in range(5)]
titles = [name if i % 5 == 0 else "" for i, (name, _) in enumerate(tiles)]
study.save_figure("patterns", image_row([tile for _, tile in tiles], titles, columns=10))

# %% [markdown]
# How much of its box a pattern inks, and how wide its strokes are (ink over length, measured on
# the images; lines on the right of a bar are the middle half of patterns).

# %%
strokes = stroke_table(kinds)
study.save_table("strokes", strokes)
figure, (ink, stroke) = plt.subplots(1, 2, figsize=(9.5, 0.9 + 0.4 * len(kinds)), sharey=True)
bars = {"data": strokes, "y": "arm", "color": "#9fc3d9"}
sns.barplot(x="ink_percent", ax=ink, **bars)
sns.barplot(x="stroke", ax=stroke, **bars)
stroke.hlines(strokes["arm"], strokes["stroke_low"], strokes["stroke_high"], color="#222222")
ink.set(xlabel="ink (% of the box)", ylabel="")
stroke.set(xlabel="stroke width (px at 28 px)", ylabel="")
study.save_figure("ink", figure)

# %% [markdown]
# ## What was published
# Every log (majority): those that stopped early are shown, and left out of all that follows.

# %%
logs = published_accuracy("Noise_Generator", incomplete=True)
columns = ["noise", "memory_size", "seed", "epochs_run", "accuracy", "train_accuracy", "note"]
show(logs[logs["task"] == "majority"][columns])

# %% [markdown]
# ## The runs

# %%
runs = run_arms(study, arms, seeds)
study.save_table("runs", runs.frame)
shared = ", ".join(f"{name} {value}" for name, value in settings.items())
Markdown(study.made_of(runs.records) + (f" All with {shared}." if shared else ""))

# %% [markdown]
# ## The tables
# Accuracy on majority in the last epoch, mean over seeds; *effect* is the mean difference to the
# first row.

# %%
table = arm_table(runs.frame)
study.save_table("summary", table)
show(headline(table))

# %% [markdown]
# The published contrast: lines against Bezier strokes of whole pixels. *Published* are the complete
# runs that keep 50 patches; in `quick` they have another scale, so compare effects.

# %%
same_scale = profile == "paper" and not overrides
cut, lines = names["bezier_pixel"], names["line"]
asked = {cut: {"noise": "bezier"}, lines: {"noise": "line"}}  # of one whole pixel, in that table
theirs = published_arms(logs[logs["complete"] & (logs["memory_size"] == 50)], asked)
contrast = table_against(runs.frame, cut, published=theirs, same_scale=same_scale)
contrast = contrast[contrast["arm"].isin(asked)]
study.save_table("contrast", contrast)
show(headline(contrast))

# %% [markdown]
# Published runs off this design, if any were asked for:

# %%
if also:
    apart = long_form(study.run([study.config(**fields) for fields in also]))
    study.save_table("apart", apart)
    table_apart = show(summarise(apart, by=["noise", "memory_size"]))
table_apart if also else Markdown("None in this profile.")

# %% [markdown]
# ## The figure

# %%
study.save_figure("accuracy", arm_dots(runs.frame, published=theirs, same_scale=same_scale))

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(runs.frame))

# %% [markdown]
# ## Does what was learned among one noise hold among the other?
# Every trained network on the first test images of every noise, mean over seeds. A network that
# learned what a digit is keeps its accuracy; one that learned what its noise looks like does not.

# %%
crossed = transfer(study.store, runs, n_images=n_transfer)
study.save_table("transfer", crossed)
if len(crossed):
    study.save_figure("transfer", transfer_map(crossed))
None if len(crossed) else Markdown("These runs came without their weights.")

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
compared = f"{{arm}}, against {contrast['arm'].iloc[0]}"
study.finding(arm_finding(published_row(contrast), compared), figure="accuracy")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout.

# %%
row = contrast[(contrast["task"] == "majority") & (contrast["arm"] == lines)].iloc[0]
stand = {True: "easier, as the claim has it", False: "no easier, against the claim"}
told = row["effect_low"] > 0 or row["effect_high"] < 0
luck = "" if told else ", though it may be luck"
majority = table[table["task"] == "majority"].set_index("arm")
reference, others = majority.index[0], majority.index[1:]
effects = "; ".join(f"*{arm}* {effect_in_words(table, arm)}" for arm in others)
of_majority = theirs[theirs["task"] == "majority"].groupby("arm")["accuracy"]
apart_by = of_majority.agg(lambda accuracy: accuracy.max() - accuracy.min()).max()
ink_of = strokes.set_index("arm")["ink_percent"]


# %%
def lost(trained_on: str, tested_on: str) -> str:
    """What networks lose by meeting another noise than that of their training."""
    rows = crossed[(crossed["task"] == "majority") & (crossed["trained_on"] == trained_on)]
    means = rows.groupby("tested_on")["accuracy"].mean()
    change = points(means[tested_on] - means[trained_on])
    return f"trained on *{trained_on}* and tested on *{tested_on}* {change}"


trained = set(crossed["trained_on"])
pairs = [pair for pair in ((cut, lines), (lines, cut)) if pair[0] in trained]
carried = "; ".join(lost(*pair) for pair in pairs) or "not measured"

# %%
Markdown(f"""
1. A digit inks {ink_of["digits"]:.1f} % of its box;
   {", ".join(f"*{arm}* {ink_of[arm]:.1f} %" for arm in arms)}.
2. *{reference}* reach {100 * majority.loc[reference, "mean"]:.0f} % (chance
   {100 * majority.loc[reference, "chance"]:.0f} %). Against it: {effects}.
3. Lines against *{cut}*: {effect_in_words(contrast, lines)}. Here lines are
   {stand[row["effect"] > 0]}{luck}. Published: {points(row["published_effect"])},
   {stand[row["published_effect"] > 0]}, from {of_majority.size().sum()} complete runs, of which
   those of one arm lie up to {100 * apart_by:.0f} points apart.
4. Finding, not reading: {found_in_words(runs.frame[runs.frame["task"] == "majority"])}.
5. Where the noise changes after training, accuracy changes: {carried}.
6. With {len(seeds)} seed{"s" if len(seeds) > 1 else ""} an arm, a single run that finds nothing
   decides an arm's mean.
""")

# %% [markdown]
# ## Limits
# - The two noises differ in shape, in ink and in where they lie: lines keep 28 px from the canvas's
#   edges, as in the original.
# - In the original both mirrorings of the second line are of the same axis; here each axis is drawn
#   for itself.
# - Testing on another noise asks what carries over, not which noise is harder to learn from.
# - In `quick` a canvas holds few noise objects; the published setting has hundreds.
# - Intervals are not corrected for the number of arms.
