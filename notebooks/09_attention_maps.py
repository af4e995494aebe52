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
# # 09 - Where does the network look?
#
# **Claim** (arXiv 2412.11237): the patches that are kept, and the attention on them, lie on the
# digits, for object-to-image ratios (O2I) from 0.008 % to 0.13 % of a canvas of 3000 x 3000 px.
#
# **Published**: four maps, digits and noise of 28, 56, 84 and 112 px among 800, 600, 400 and 200
# noise objects, the M = 100 kept patches coloured by their attention; no number. They are drawn
# on canvases of 1500 x 1500 px, where the same digits make four times these ratios.
#
# **Contrast, written before any run**: the share of digits touched by a kept patch less that which
# M random patches touch, mean over digit sizes, one value a seed. *Supports*: above zero.
# *Contradicts*: below zero. *Equivalent to none*: within 5 points. Else *open*.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
digit_sizes = [20, 28]  # px; noise objects have the same size
noise_counts = [7, 4]  # noise objects on a canvas, one number a digit size
n_train = 1000  # images
seeds = [0, 1, 2]  # of training; maps are those of the first
image = 0  # which test image is shown
scale = "rank"  # colours by attention: rank, linear (times uniform) or log
checkpoint = ""  # an original .pth of one digit size, instead of own runs; MNIST is then needed
n_images = 100  # test images that a checkpoint is measured on
overrides = {}  # any other field of RunConfig, for every run, such as {"epochs": 5}

# %%
import pandas as pd
from IPython.display import Markdown

from ipslib import MegapixelMNIST, evaluate, load_original
from ipslib.paths import found
from ipslib.study import Study, attention_figure, map_of_image, show, state

study = Study("09_attention_maps", profile, overrides=overrides)
study

# %% [markdown]
# ## The networks
# Own runs are reused where they exist (they are notebook 01's with the largest training set). An
# original checkpoint is opened as it is; the one digit size given must be its own.

# %%
settings = study.digit_settings(digit_sizes, noise_counts)
configs = [study.config(**each, n_train=n_train, seed=seed) for seed in seeds for each in settings]
if checkpoint:
    [config] = configs[: len(settings)]  # a checkpoint has one digit size
    configs = [config.replace(n_test=n_images)]
    networks, source = [load_original(found(checkpoint))], f"Original checkpoint {checkpoint}."
else:
    records = study.run(configs)
    networks = [study.store.load_network(record) for record in records]
    source = study.made_of(records)
test_sets = [MegapixelMNIST(config.data, "test") for config in configs]
Markdown(source)

# %% [markdown]
# ## The maps
# One test image each, of the first seed. Squares are the M patches kept at the end of the forward
# pass, coloured by attention (mean over heads and tasks); outlined boxes are the digits, everything
# else is noise.

# %%
shown = [each.config for each in test_sets[: len(digit_sizes)]]
titles = [f"{data.digit_size} px, O2I {100 * data.o2i_ratio:.3g} %" for data in shown]
maps = [
    map_of_image(network, test_set, image, title=title)
    for network, test_set, title in zip(networks, test_sets, titles, strict=False)
]
study.save_figure("maps", attention_figure(maps, scale=scale))

# %% [markdown]
# ## The table
# One row a network, over all test images. *Digits kept*: share of digits touched by a kept patch.
# *Attention on digits*: share of the attention on patches that touch one. Both beside what M
# patches drawn blindly, attended alike, would score. *Entropy*: of the attention, 100 % is uniform.

# %%
rows = []
for network, test_set, config in zip(networks, test_sets, configs, strict=True):
    measured = evaluate(network, test_set, config.training.batch_size)
    data, of_set = config.data, measured.localisation._asdict()
    setting = {"seed": config.training.seed, "digit_size": data.digit_size}
    setting |= {"o2i_ratio": data.o2i_ratio, "n_noise": data.n_noise}
    rows.append(setting | of_set | {"accuracy": measured.accuracy["majority"]})
table = pd.DataFrame(rows)
study.save_table("attention", table)
show(table)

# %% [markdown]
# ## The finding
# What the summary (notebook 99) says of this question.

# %%
above = table.assign(accuracy=table["roi_recall"] - table["roi_recall_random"])
changes = above.groupby("seed", as_index=False)["accuracy"].mean()
claim, contrast = "kept patches lie on digits", "digits kept, against random patches"
finding = state(claim, contrast, changes, table, direction=1, by="digit_size")
study.finding(finding, figure="maps")

# %% [markdown]
# ## Reading

# %%
recall = table["roi_recall"] / table["roi_recall_random"]
mass = table["attention_on_digits"] / table["attention_on_digits_random"]
worst = table.loc[recall.idxmin()]
Markdown(f"""
1. Kept patches touch {100 * table["roi_recall"].min():.0f} to
   {100 * table["roi_recall"].max():.0f} % of the digits, {recall.min():.1f} to
   {recall.max():.1f} times as many as random patches.
2. Attention on digits is {mass.min():.1f} to {mass.max():.1f} times their share of the patches.
3. The margin over chance is smallest at {worst["digit_size"]:.0f} px, seed {worst["seed"]:.0f}:
   {100 * worst["roi_recall"]:.0f} % against {100 * worst["roi_recall_random"]:.0f} %.
4. Both are above chance at {int(((recall > 1) & (mass > 1)).sum())} of {len(table)} networks, and
   digits kept are so by a factor of two or more at {int((recall >= 2).sum())}. Accuracy tells
   whether what was found was read: {100 * table["accuracy"].min():.0f} to
   {100 * table["accuracy"].max():.0f} % on majority.
""")

# %% [markdown]
# ## Limits
# - A map shows one image and one seed; the table speaks of all.
# - Attention says where the network reads, not that it reads well: accuracy stands beside it.
# - A patch that touches a digit may hold only a corner of its box.
