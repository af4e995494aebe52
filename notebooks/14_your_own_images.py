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
# # 14 - How do I train on my own images?
#
# One CSV, one call. The CSV names the images and, in a column a task, their classes:
#
# ```
# image,split,species
# photos/0001.jpg,train,oak
# photos/0002.tif,test,beech
# ```
#
# `image` is a path relative to the CSV: JPEG, PNG, TIFF (tiled ones are read patch by patch, of
# any size) or a `.npy` memory map. Images may differ in size. Without a column `split`, a share of
# each class is kept for testing; images of one `patient`, or of another column that `group` names,
# stay together.
#
# Set `labels` below to your CSV. Left empty, the notebook **draws an example**: images of many
# sizes and formats with one small shape each among strokes. They are no results of the study.

# %% tags=["parameters"]
profile = "quick"  # base settings: params/<profile>/base.yaml; the rest is set below
labels = ""  # path of your CSV, from the project's folder; empty: images drawn for this notebook
group = ""  # column of what images belong to; empty: one that is called patient or the like
n_drawn = 400  # images of the drawn example
drawn_side = 192  # px, of the largest of them
image = 0  # which test image is shown with its attention
settings = {"patch_size": 32, "memory_size": 16, "iter_size": 16, "batch_size": 8, "epochs": 12}
overrides = {}  # any other field of the images, the network or its training

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from IPython.display import Markdown
from PIL import Image, ImageDraw

from ipslib import train_images
from ipslib.datasets.images.own_images import OwnImages
from ipslib.datasets.synthetic import make_once, stream, synthetic_folder
from ipslib.study import Study, learning_curves, long_form, show

study = Study("14_your_own_images", profile)

# %% [markdown]
# ## The drawn example
# A cross, a disc or a ring of 18 px among strokes; the images take turns in being PNG, tiled TIFF,
# `.npy` and JPEG.

# %%
SHAPES, SUFFIXES = ("cross", "disc", "ring"), (".png", ".tif", ".npy", ".jpg")
GROUND, STROKE, SHAPE, SIZE = (200, 190, 170), (90, 105, 140), (170, 35, 30), 18


def draw_image(random, shape):
    """(H, W, 3) uint8."""
    height, width = random.randint(3 * drawn_side // 4, drawn_side + 1, 2).tolist()
    image = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y = random.randint(0, width), random.randint(0, height)
        dx, dy = random.randint(-drawn_side // 8, drawn_side // 8 + 1, 2).tolist()
        draw.line((x, y, x + dx, y + dy), fill=STROKE, width=2)
    draw_shape(draw, shape, random.randint(0, width - SIZE), random.randint(0, height - SIZE))
    noise = random.randint(-12, 13, (height, width, 1))
    return np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8)


def draw_shape(draw, shape, left, top):
    right, bottom = left + SIZE - 1, top + SIZE - 1
    draw.rectangle((left, top, right, bottom), fill=GROUND)
    if shape == "cross":
        draw.line((left, top, right, bottom), fill=SHAPE, width=3)
        draw.line((left, bottom, right, top), fill=SHAPE, width=3)
    else:
        fill = SHAPE if shape == "disc" else GROUND
        draw.ellipse((left, top, right, bottom), fill=fill, outline=SHAPE, width=3)


# %%
def write(path, pixels):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib", photometric="rgb")
    elif path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, quality=92)


def draw_example(folder):
    lines = ["image,shape"]
    for i in range(n_drawn):
        name, shape = f"{i:04d}{SUFFIXES[i % 4]}", SHAPES[i % 3]
        write(folder / name, draw_image(stream(0, 7, i), shape))
        lines.append(f"{name},{shape}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


# %%
csv = labels
if not labels:
    folder = synthetic_folder(f"own_images_{n_drawn}_{drawn_side}")
    csv = make_once(folder, draw_example) / "labels.csv"
Markdown(f"The images of {Path(csv).name}." if labels else "**Drawn examples**, not photographs.")

# %% [markdown]
# ## The call
# Training, checkpoints and the record go to `folder`; the same call again finds the record there
# and trains nothing. Every field of the configuration can be set: `encoder`, `weights` (those of
# ImageNet for photographs), `memory_size`, `epochs`, ... The network here is the narrow one of
# this profile.

# %%
model = study.base.model
narrow = {"width": model.width, "n_heads": model.n_heads, "dropout": 0.0, "attn_dropout": 0.0}
of_profile = narrow | {"warmup_epochs": study.base.training.warmup_epochs}
fields = {"group": group or None, **of_profile, **settings, **overrides}
trained = train_images(csv, folder=study.layout.records, **fields)
study.save_table("runs", long_form([trained.record]))
left_out = [f"- left out: {sentence}" for sentence in trained.skipped]
Markdown("\n".join([*trained.notes, "", *left_out]).strip() or "Every image could be read.")

# %% [markdown]
# ## The table
# Accuracy on the test images in the last epoch, beside the share of the most frequent class.

# %%
rows = [
    {"task": task, "accuracy": accuracy, "chance": trained.chance[task]}
    | {name: by_task.get(task) for name, by_task in trained.record["result"]["measures"].items()}
    for task, accuracy in trained.accuracy.items()
]
table = pd.DataFrame(rows)
study.save_table("summary", table)
show(table)

# %%
study.save_figure("curves", learning_curves([trained.record], by="patch_size"))

# %% [markdown]
# ## New images
# `predict` takes files or arrays of any size, `attention_map` draws what the network kept of one.

# %%
test = OwnImages(trained.config.data, "test")
shown = test.names[image : image + 4]
predicted = trained.predict(shown)
predicted["image"] = [Path(name).name for name in predicted["image"]]
study.save_table("predictions", predicted)
show(predicted)

# %%
study.save_figure("map", trained.attention_map(test.names[image]))

# %% [markdown]
# ## Reading

# %%
first, answer = next(iter(trained.accuracy.items()))
learnt = answer >= 2 * trained.chance[first]
Markdown(f"""
On {trained.record["result"]["n_test"]} test images the network names `{first}` rightly in
{100 * answer:.0f} % of them; naming the most frequent class always would be right in
{100 * trained.chance[first]:.0f} %.
{"It has learned." if learnt else "**It has not learned**: see the limits below."}
""")

# %% [markdown]
# ## Limits
# - Nothing is known of what may be done to your images, so they are not augmented.
# - M, the patches kept, decides memory; where the objects are found late, a larger M finds them
#   sooner. A network that stays at chance usually needs more images, more epochs or a larger M.
# - The test images are looked at once an evaluation and choose nothing: the last epoch counts.
