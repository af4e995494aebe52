"""The published results: last-epoch accuracy of every run that the study's tables compare with.

Source: the training logs behind the dissertation "On the Generalizability of High-Resolution
Image Classification with Memory-Efficient Transformers" (its paper: arXiv 2412.11237). Figures
only: `published_runs.csv` is a compiled table of facts. Computed here is one thing alone, the
epochs of take-off: `statistics.take_off_epoch` of the logs' training accuracy, blank where the run
did not take off and for traffic signs.

Columns are named as in `RunConfig`. What was decided where a run's sources disagree:

- canvas: the run's name, since some logs state the patch count of another canvas (`note`);
- n_train, n_test: the only sizes for which every logged accuracy is a whole number of images;
- mask_k, mask_p: the log's configuration; both 0 where nothing was masked (k = 0 or p = 0);
- stroke_width: what was asked for, in px at 28 px; blank where the name does not say, and drawn
  in whole pixels (1.4 to 1.9 drew 1 px, 2.0 to 2.8 drew 2 px);
- noise: the generator (`bezier` with that whole-pixel stroke); blank for runs of another naming;
- seed: as in the name, though nearly all logs print seed 0: read the spread as that of repeats;
- diversity_weight: blank for the traffic signs' diversity runs, whose names alone hint at it.

`complete` is False, and `note` says so, where a run stopped early; `note` also marks logs whose
curves are those of another log. A run filed under two categories has a row in each.
"""

from functools import cache
from importlib.resources import files

import pandas as pd

from ipslib.datasets.traffic_signs.annotations import PUBLISHED_COUNTS
from ipslib.errors import IpslibError, did_you_mean

REFERENCE = "results_28_28_1500_1500_50n_1000d_K_00_P_00"  # of Attention_Masking
# What tells one published setting of traffic signs from another; fields of RunConfig.
SIGN_SETTING = (
    *("fraction", "patch_size", "memory_size", "iter_size", "mask_k", "mask_p"),
    *("diversity_weight", "encoder", "weights"),
)
_NOT_COMPARED = "same curves|diversity in name|sets swapped"
_MEASURES = {
    "accuracy": "test",
    "train_accuracy": "train",
    "best_accuracy": "best",
    "take_off_epoch": "take_off",
}
_TASKS = ("majority", "max", "top", "multi", "sign")
_WIDE = [f"{split}_{task}" for split in _MEASURES.values() for task in _TASKS]


def _read(name: str) -> pd.DataFrame:
    with files(__package__).joinpath(name).open() as file:
        return pd.read_csv(file, dtype={"log": str})


@cache
def _table() -> pd.DataFrame:
    table = _read("published_runs.csv")
    table["note"] = table["note"].fillna("")
    return table


def load_published(category: str | None = None) -> pd.DataFrame:
    """One row per run and category, with `{test,train,best}_{task}` accuracies in 0..1, and
    `take_off_{task}` epochs.

    Args:
        category: one of the study's categories, such as `O2I_datasize`; all of them if None.

    Raises:
        IpslibError: the category is unknown.
    """
    table = _table()
    if category is not None:
        known = table["category"].unique()
        if category not in known:
            raise IpslibError(f"no published category {category!r}{did_you_mean(category, known)}.")
        table = table[table["category"] == category]
    return _whole_numbers(table.reset_index(drop=True))


def published_accuracy(
    category: str, *, incomplete: bool = False, **fields: object
) -> pd.DataFrame:
    """One row per run and task, as `tables.long_form` gives for own runs.

    Args:
        category: one of the study's categories.
        incomplete: keep runs that stopped early too.
        **fields: a value, or a list of values, that a column must have, such as `canvas=3000`.

    Returns:
        The runs' columns with `task`, `accuracy`, `train_accuracy` (last epoch), `best_accuracy`
        (over epochs), `took_off` (1 or 0), `take_off_epoch` and `o2i_ratio`.

    Raises:
        IpslibError: category or field unknown, or no run left.
    """
    runs = load_published(category)
    if not incomplete:
        runs = runs[runs["complete"]]
    for field, wanted in fields.items():
        known = runs.columns.drop(_WIDE)
        if field not in known:
            raise IpslibError(f"no published column {field!r}{did_you_mean(field, known)}.")
        kept = runs[runs[field].isin(wanted if isinstance(wanted, list | tuple) else [wanted])]
        if kept.empty:
            there = sorted(runs[field].dropna().unique().tolist())
            raise IpslibError(
                f"no published {category} run has {field} = {wanted!r}; there are {there}."
            )
        runs = kept
    frames = [
        runs.drop(columns=_WIDE).assign(
            task=task, **{name: runs[f"{split}_{task}"] for name, split in _MEASURES.items()}
        )
        for task in _TASKS
    ]
    long = pd.concat(frames, ignore_index=True).dropna(subset="accuracy", ignore_index=True)
    long["took_off"] = long["take_off_epoch"].notna().astype(float).where(long["task"] != "sign")
    long["o2i_ratio"] = long["digit_size"] ** 2 / long["canvas"] ** 2
    return _whole_numbers(long)


def published_curve() -> pd.DataFrame:
    """The training of the `REFERENCE`: one row per epoch (from 1) and task with `loss` and
    `accuracy` on the training set, as logged."""
    return _read("published_curve.csv")


def published_signs() -> pd.DataFrame:
    """The published runs on traffic signs, one row per log, by setting.

    Returns:
        The columns of `published_accuracy`, with `fraction` (of the training images), `chance`
        (the share of the most frequent class), `setting` in words, and `compared`: False where a
        run stopped early, repeats another log, trained on the test set, or was configured other
        than its name says. `diversity_weight` is that of the name where the log has none.
    """
    runs = published_accuracy("Traffic_Signs", incomplete=True)
    in_name = runs["name"].str.extract(r"Diversity_loss_(\d+)D")[0]  # 010 is 0.1, 1 is 1
    in_name = in_name.str.replace("^0", "0.", regex=True).astype(float).fillna(0)
    runs["diversity_weight"] = runs["diversity_weight"].fillna(in_name)
    tested = map(_sign_test_set, runs["n_train"], runs["n_test"])
    runs["fraction"], runs["chance"] = zip(*tested, strict=True)
    runs["setting"] = runs.apply(_sign_setting, axis=1)
    runs["compared"] = runs["complete"] & ~runs["note"].str.contains(_NOT_COMPARED)
    descending = ["fraction", "patch_size", "iter_size"]
    by = ["fraction", "encoder", "mask_p", "mask_k", "diversity_weight", *descending[1:]]
    ascending = [name not in descending for name in by]
    return runs.sort_values(by, ascending=ascending, kind="stable", ignore_index=True)


def _sign_test_set(n_train: float, n_test: float) -> tuple[float, float]:
    """The fraction of the photographs that a run's sizes amount to, and the share of the most
    frequent class among those it tested on."""
    for split, other in (("test", "train"), ("train", "test")):  # some swapped the two
        for fraction in (1.0, 0.5, 0.25):
            tested, trained = (
                [int(fraction * count) for count in PUBLISHED_COUNTS[of]] for of in (split, other)
            )
            if n_test == sum(tested) or n_train == sum(trained):
                return fraction, max(tested) / sum(tested)
    raise IpslibError(f"wanted sizes of a published set, got {n_train} and {n_test} images.")


def _sign_setting(run: pd.Series) -> str:
    words = [f"{100 * run['fraction']:g} %", f"patch {run['patch_size']}"]
    words.append(f"M {run['memory_size']}, I {run['iter_size']}")
    if run["mask_k"]:
        words.append(f"masked K {run['mask_k']}, p {run['mask_p']:g}")
    if run["diversity_weight"]:
        words.append(f"diversity {run['diversity_weight']:g}")
    if run["encoder"] != "resnet18":
        words.append(f"{run['encoder']} {run['weights'].removeprefix('imagenet_')}")
    return ", ".join(words)


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Counts and sizes as integers again where the rows left have no blank."""
    counts = ["digit_size", "canvas", "n_noise", "n_train", "n_test", "seed"]
    return table.astype({name: int for name in counts if table[name].notna().all()})
