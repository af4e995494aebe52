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
# **Claim** (arXiv 2412.11237): below some number of training images the network memorises the
# training set and learns nothing else; above it accuracy on new images rises steeply, then
# levels off.
#
# **Published**: ten runs, 200 to 5000 training images, digits of 28 px among 800 noise objects on
# canvases of 3000 x 3000 px, one run a size.
#
# **Contrast, written before any run**: what accuracy on majority changes from the smallest to the
# largest training set, by a straight line in doublings, one value a seed. *Supports*: above zero.
# *Contradicts*: below zero. *Equivalent to none*: within 5 points. Else *open*. Whether the rise
# has a threshold is what the fitted curve describes.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
train_sizes = [125, 250, 500, 1000]  # images; the largest is the reference
seeds = [0, 1, 2]  # of training: initial weights, order of images, order of patches
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.ticker import NullLocator
from scipy import optimize
from scipy.special import expit

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study import (
    DIAMOND,
    INK,
    OURS,
    PUBLISHED,
    Study,
    arm_table,
    attention_against_accuracy,
    chance_level,
    change_along,
    headline,
    image_row,
    learning_curves,
    log_ticks,
    points,
    published_accuracy,
    published_beside,
    row_legend,
    run_arms,
    show,
    slope_finding,
    task_panels,
)

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
records, frame = run_arms(study, arms, seeds)
study.save_table("runs", frame)
Markdown(study.made_of(records))

# %% [markdown]
# ## The table
# Accuracy on majority in the last epoch, mean over seeds. The first row is the reference, *effect*
# the mean difference to it. The other tasks are in the CSV file.

# %%
published = published_accuracy("Dataset_Size", canvas=3000)
theirs = published_beside(frame, published, on=["n_train"]) if study.same_scale else None
table = arm_table(frame, published=theirs, same_scale=study.same_scale)
study.save_table("summary", table)
show(headline(table))

# %% [markdown]
# ## The threshold
# A logistic curve in the logarithm of the training set's size n, its floor held at chance:
#
#     accuracy(n) = chance + (ceiling - chance) / (1 + exp(-slope (log n - log n_half)))
#
# Ceiling (at most 1), slope and n_half are fitted by least squares. n_half, the threshold, is the
# size at which accuracy is half-way between chance and ceiling.

# %%
STEEPEST = 4.0  # log of the slope: 10 to 90 % within 8 % more images


def curve(n, chance, middle, log_slope, top):
    """Accuracy; `middle` is log n_half, the ceiling chance + (1 - chance) expit(top)."""
    slope = np.exp(min(log_slope, STEEPEST))
    return chance + (1 - chance) * expit(top) * expit(slope * (np.log(n) - middle))


def fit(n, accuracy, chance, starts):
    """The best fit of several starts: middle, log slope and top."""
    n, accuracy = np.asarray(n, float), np.asarray(accuracy)

    def left(fitted):
        return curve(n, chance, *fitted) - accuracy

    fits = [optimize.leastsq(left, start)[0] for start in starts]
    middle, log_slope, top = min(fits, key=lambda each: (left(each) ** 2).sum())
    return np.array([middle, min(log_slope, STEEPEST), top])


# %% [markdown]
# Its 95 % interval is that of a bootstrap. Where every size has five runs or more, runs are drawn
# anew within sizes. Fewer tell no spread of their own: accuracies are then drawn about the fitted
# curve, with the spread of all runs about it (itself drawn, as so few runs tell it poorly), or with
# the binomial spread of the count of right answers where that is larger.


# %%
def drawn_anew(runs, chance, fitted):
    """400 times sizes and accuracies of other runs that might have been."""
    random, by_size = np.random.default_rng(0), runs.groupby("n_train")["accuracy"]
    n, has_own_spread = runs["n_train"].to_numpy(), by_size.size().min() >= 5
    expected = curve(n, chance, *fitted)
    squares = ((runs["accuracy"] - expected) ** 2).sum()
    binomial = np.sqrt(expected * (1 - expected) / runs["n_test"].to_numpy())
    for _ in range(400):
        if has_own_spread:
            drawn = by_size.sample(frac=1, replace=True, random_state=random)
            yield runs.loc[drawn.index, "n_train"], drawn
        else:
            spread = np.sqrt(squares / random.chisquare(len(n) - len(fitted)))
            yield n, random.normal(expected, np.maximum(spread, binomial)).clip(0, 1)


def fit_with_draws(runs, chance):
    """The fit of one task's runs, and those of the draws."""
    middles = np.quantile(np.log(runs["n_train"]), (0.2, 0.5, 0.8))
    starts = [(middle, np.log(2), 2) for middle in middles]
    fitted = fit(runs["n_train"], runs["accuracy"], chance, starts)
    draws = [fit(*each, chance, [fitted]) for each in drawn_anew(runs, chance, fitted)]
    return fitted, np.array(draws)


# %% [markdown]
# Where the runs do not show the half-way point it is left blank, and *why not* says so; a bound of
# the interval outside the sizes that were run is not known, and blank too. The published runs are
# fitted in the same way; they are one a size and print one seed, so that their interval is of the
# fit alone.


# %%
def why_not(runs, chance, fitted):
    first, last = runs["n_train"].min(), runs["n_train"].max()
    left = runs["accuracy"] - curve(runs["n_train"], chance, *fitted)
    spread = np.sqrt((left**2).sum() / (len(runs) - len(fitted)))
    if curve(last, chance, *fitted) - chance < 2 * spread:
        return "accuracy does not leave chance clearly"
    if fitted[1] >= STEEPEST:
        return "steeper than the sizes can tell"
    if fitted[0] > np.log(last):
        return "half-way lies beyond the largest training set"
    return "the smallest training set is past half-way" if fitted[0] < np.log(first) else ""


def threshold(runs, task):
    """A row of the table, and the curve with its pointwise 95 % band."""
    row = {"task": task, "n_runs": len(runs)}
    if runs["n_train"].nunique() < 3 or len(runs) < 4:
        return row | {"why not": "too few runs or sizes for a curve"}, None
    chance, n = chance_level(task), np.geomspace(runs["n_train"].min(), runs["n_train"].max(), 60)
    fitted, draws = fit_with_draws(runs, chance)
    reason = why_not(runs, chance, fitted)
    bounds = np.exp(np.quantile(draws[:, 0], (0.025, 0.975)))
    n_low, n_high = (each if n[0] <= each <= n[-1] else np.nan for each in bounds)
    row |= {"n_low": n_low, "n_high": n_high, "slope": np.exp(fitted[1]), "why not": reason}
    if not reason:
        ceiling = chance + (1 - chance) * expit(fitted[2])
        row |= {"n_half": np.exp(fitted[0]), "ceiling": ceiling}
    low, high = np.quantile([curve(n, chance, *each) for each in draws], (0.025, 0.975), axis=0)
    band = {"n": n, "accuracy": curve(n, chance, *fitted), "low": low, "high": high}
    return row, pd.DataFrame(band)


# %%
rows, curves = [], {}
for whose, runs in {"here": frame, "published": published}.items():
    for task, of_task in runs.groupby("task", sort=False):
        row, curves[whose, task] = threshold(of_task, task)
        rows.append({"runs": whose} | row)
numbers = ["n_half", "n_low", "n_high", "ceiling", "slope"]
thresholds = pd.DataFrame(rows).reindex(columns=["runs", "task", *numbers, "n_runs", "why not"])
study.save_table("thresholds", thresholds)
shown = thresholds.assign(**thresholds[numbers[:3]].round().astype("Int64"))
show(shown.drop(columns="slope"))


# %%
def draw_fit(ax, whose, task, colour, label):
    fitted = thresholds[(thresholds["runs"] == whose) & (thresholds["task"] == task)].iloc[0]
    if (of_task := curves[whose, task]) is not None:
        n, shares = of_task["n"], 100 * of_task
        ax.plot(n, shares["accuracy"], color=colour, label=f"fit, {label}")
        band = {"alpha": 0.16, "linewidth": 0, "label": "95 % band"}
        ax.fill_between(n, shares["low"], shares["high"], color=colour, **band)
    if pd.notna(fitted["n_half"]):
        ax.axvline(fitted["n_half"], color=colour, lw=1.2, ls="--", label="threshold")


def draw_task(ax, task):
    ours, theirs = (each[each["task"] == task] for each in (frame, published))
    whose = "published" if study.same_scale else "published at its own scale"
    draw_fit(ax, "published", task, PUBLISHED, whose)
    ax.plot(theirs["n_train"], 100 * theirs["accuracy"], label="published run", **DIAMOND)
    draw_fit(ax, "here", task, OURS, "here")
    dots = {"s": 24, "color": INK, "edgecolor": "white", "zorder": 5, "label": "one run"}
    ax.scatter(ours["n_train"], 100 * ours["accuracy"], **dots)


# %%
labels = {"x_label": "training images (log scale)", "y_label": "test accuracy (%)"}
figure, panels = task_panels(list(frame["task"].unique()), **labels)
for task, ax in panels.items():
    draw_task(ax, task)
    ax.set_xscale("log")
    log_ticks(ax.xaxis)
    ax.xaxis.set_minor_locator(NullLocator())
row_legend(figure, ax.get_legend_handles_labels()[0], n_columns=4)
study.save_figure("threshold", figure)

# %% [markdown]
# ## Memorised or learned?
# Accuracy on the training images (dashed) and on the test images (solid): a gap between the two
# is what was memorised.

# %%
study.save_figure("curves", learning_curves(records))

# %%
majority, their_majority = (each[each["task"] == "majority"] for each in (frame, published))
measures = ["train_accuracy", "accuracy"]
gaps = pd.concat(
    {
        whose: rows.groupby("n_train")[measures].mean().reset_index()
        for whose, rows in {"here": majority, "published": their_majority}.items()
    },
    names=["runs"],
).reset_index("runs")
gaps["difference"] = gaps["train_accuracy"] - gaps["accuracy"]
study.save_table("gaps", gaps)
show(gaps)

# %% [markdown]
# ## Failure to find or failure to read?
# A dot a run. Far left a run kept no more digits than random patches; low on the right it kept
# the digits and did not read them.

# %%
study.save_figure("attention", attention_against_accuracy(frame))

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
theirs = change_along(published[published["task"] == "majority"], "n_train", by=["canvas"])
contrast = f"straight line from {min(train_sizes)} to {max(train_sizes)} training images"
more = {"direction": 1, "published": theirs["accuracy"].mean()}
finding = slope_finding("more images raise accuracy", contrast, frame, "n_train", **more)
study.finding(finding, figure="threshold")

# %% [markdown]
# ## Reading
# Accuracy on majority throughout: at the smallest and the largest training set, how far training
# accuracy stands above it there, and the threshold. Thresholds can be compared only where the scale
# is the same.

# %%
ends = gaps.groupby("runs").nth([0, -1])
display(show(ends, caption="the smallest and the largest training set"))
show(shown[shown["task"] == "majority"].drop(columns=["task", "slope"]), caption="the threshold")

# %%
theirs = gaps[gaps["runs"] == "published"]["accuracy"]
rows = table[table["task"] == "majority"]
smallest, took_off = rows.iloc[-1], rows["took_off"] * rows["n"]
Markdown(f"""
1. With {smallest["arm"]} accuracy stands {points(smallest["effect"])} from that with
   {rows["arm"].iloc[0]} (95 % interval {points(smallest["effect_low"], smallest["effect_high"])});
   published, {points(theirs.iloc[0] - theirs.iloc[-1])} from one run a size. It falls at
   {(theirs.diff() < 0).sum()} of the {len(theirs) - 1} published steps: single points are partly
   luck.
2. {took_off.sum():.0f} of {rows["n"].sum()} runs took off: in the others nothing was learned, not
   even the training images.
""")

# %% [markdown]
# ## Limits
# - Every training set is seen for the same number of epochs, so a larger one also gets more steps;
#   the published runs share this. More images and more steps are not told apart here.
# - Where a size has fewer than five runs the bootstrap draws from the spread of all runs about the
#   curve, the same at every size. If the curve has the wrong form, that counts as spread.
# - Ceiling and threshold are fitted together: as long as accuracy has not levelled off within the
#   sizes run, the one can be traded for the other, and the interval is wide or open.
# - Outside `paper` the scale is far smaller, and thresholds are not those of the published setting.
# - Runs of `quick` have what notebook 17 found to let every one take off. Among it are images that
#   are moved, which may help small training sets most; published runs had not.
