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
# # 04 - How many training images does it take?
#
# **Claim** (arXiv 2412.11237): below some number of training images the network learns the
# training set by heart and nothing else; above it accuracy on new images rises steeply, then
# levels off.
#
# **Published**: ten runs, 200 to 5000 training images, digits of 28 px among 800 noise objects on
# canvases of 3000 x 3000 px, one run a size.
#
# **What would refute it**: accuracy that rises evenly with every doubling, so that no threshold
# can be fitted, or that does not rise at all.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
train_sizes = [150, 300, 600, 1500]  # images; the largest is the reference
seeds = [0, 1]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import pandas as pd
from IPython.display import Markdown

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import per_doubling, slope_finding
from ipslib.study.arm_figures import attention_against_accuracy
from ipslib.study.arms import arm_table, headline, published_arms, run_arms
from ipslib.study.contrast import found_in_words
from ipslib.study.figures import learning_curves
from ipslib.study.gallery import image_row
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study
from ipslib.study.size_figures import threshold_curves
from ipslib.study.tables import show
from ipslib.study.thresholds import fit_thresholds, threshold_in_words, threshold_table
from ipslib.study.wording import points

study = Study("04_dataset_size", profile, overrides=overrides)
study

# %% [markdown]
# ## The data
# The first training images, digits outlined. Every larger training set holds the smaller ones; the
# test images are the same for all sizes.

# %%
sizes = sorted(train_sizes, reverse=True)
arms = {f"{size} images": {"n_train": size} for size in sizes}
examples = MegapixelMNIST(study.config(n_train=sizes[0]).data, "train")
images = [examples.canvas(index) for index in range(3)]
boxes = [examples.batch([index]).boxes[0].numpy() for index in range(3)]
study.save_figure("data", image_row(images, ["first", "second", "third"], boxes=boxes))

# %% [markdown]
# ## The runs

# %%
runs = run_arms(study, arms, seeds)
study.save_table("runs", runs.frame)
Markdown(study.made_of(runs.records))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds. The first row is the reference, *effect*
# the mean difference to it. The other tasks are in the CSV file.

# %%
published = published_accuracy("Dataset_Size", canvas=3000)
same_scale = profile == "paper" and not overrides
theirs = None
if same_scale:
    theirs = published_arms(published, {a: {"n_train": arms[a]["n_train"]} for a in arms})
table = arm_table(runs.frame, published=theirs, same_scale=same_scale)
study.save_table("summary", table)
show(headline(table))

# %% [markdown]
# ## The threshold
# A logistic curve in the logarithm of the training set's size, its floor held at chance and its
# ceiling free. The threshold is the size at which accuracy is half-way between the two, with a
# bootstrap interval. Where the runs do not show it, the table says why. The published runs are
# fitted in the same way.

# %%
fits, published_fits = fit_thresholds(runs.frame), fit_thresholds(published)
by_whom = {"here": threshold_table(fits), "published": threshold_table(published_fits)}
thresholds = pd.concat(by_whom, names=["runs"]).reset_index("runs")
study.save_table("thresholds", thresholds)
show(thresholds[["runs", "task", "threshold", "ceiling", "n_runs"]])

# %%
curves = threshold_curves(
    runs.frame,
    fits,
    published=published,
    published_fits=published_fits,
    same_scale=same_scale,
)
study.save_figure("threshold", curves)

# %% [markdown]
# ## Learning by heart
# Accuracy on the training images (dashed) and on the test images (solid): a gap between the two
# is what was learned by heart.

# %%
study.save_figure("curves", learning_curves(runs.records))

# %%
majority = runs.frame[runs.frame["task"] == "majority"]
theirs_majority = published[published["task"] == "majority"]
measures = ["train_accuracy", "accuracy"]
ours_gap = majority.groupby("n_train")[measures].mean().reset_index()
their_gap = theirs_majority.groupby("n_train")[measures].mean().reset_index()
gaps = pd.concat({"here": ours_gap, "published": their_gap}, names=["runs"]).reset_index("runs")
gaps["difference"] = gaps["train_accuracy"] - gaps["accuracy"]
study.save_table("gaps", gaps)
show(gaps)

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(runs.frame))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
within = ["canvas", "digit_size", "n_noise"]
ours, theirs = (per_doubling(each, "n_train", within=within) for each in (runs.frame, published))
finding = slope_finding("per doubling of the training set", ours, theirs)
study.finding(finding, figure="threshold")

# %% [markdown]
# ## Reading

# %%
few, many = sizes[-1], sizes[0]
means = 100 * majority.groupby("n_train")["accuracy"].mean()
gap = gaps.set_index(["runs", "n_train"])["difference"]
their_sizes = sorted(theirs_majority["n_train"].unique())
their_means = 100 * theirs_majority.groupby("n_train")["accuracy"].mean()
n_falls = int((their_means.diff() < 0).sum())
fit, their_fit = fits["majority"], published_fits["majority"]
roi = 100 * majority.groupby("n_train")["roi_recall"].mean()
if fit.why:
    verdict = "So ours cannot be compared."
elif fit.n_low > 0 and fit.n_high < float("inf"):
    verdict = "Both have one; they are of different scale, so that no more can be compared."
else:
    verdict = "Ours is open on one side: these sizes are too few, or too small, to bound it."
if same_scale and not fit.why:
    overlap = fit.n_low <= their_fit.n_high and their_fit.n_low <= fit.n_high
    verdict = f"The two intervals {'overlap' if overlap else 'do not overlap: we disagree'}."

# %%
Markdown(f"""
1. From {few} to {many} training images accuracy on majority goes from {means[few]:.0f} to
   {means[many]:.0f} % (chance 10 %). Published, from {their_sizes[0]} to {their_sizes[-1]}:
   {their_means.iloc[0]:.0f} to {their_means.iloc[-1]:.0f} %.
2. The threshold on majority: here {threshold_in_words(fit)}; published
   {threshold_in_words(their_fit)}. {verdict}
3. Training accuracy stands {points(gap["here", few])} from test accuracy on {few} images and
   {points(gap["here", many])} on {many}; published {points(gap["published", their_sizes[0]])} on
   {their_sizes[0]} and {points(gap["published", their_sizes[-1]])} on {their_sizes[-1]}.
4. Finding, not reading: {found_in_words(majority)}. Digits kept on average:
   {", ".join(f"{recall:.0f} % with {n}" for n, recall in roi.items())}.
5. Published accuracy goes down at {n_falls} of the {len(their_sizes) - 1} steps to the next larger
   training set: with one run a size, single points are partly luck.
""")

# %% [markdown]
# ## Limits
# - Every training set is seen for the same number of epochs, so a larger one also gets more steps;
#   the published runs share this. More images and more steps are not told apart here.
# - Where a size has fewer than five runs the bootstrap draws from the spread of all runs about the
#   curve, the same at every size. If the curve has the wrong form, that counts as spread.
# - Ceiling and threshold are fitted together: as long as accuracy has not levelled off within the
#   sizes run, the one can be traded for the other, and the interval is wide or open.
# - In `quick` the scale is far smaller, so its thresholds are not those of the published setting.
