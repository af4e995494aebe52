"""The published results: last-epoch accuracy of every run that the study's tables compare with.

Source: the training logs behind the dissertation "On the Generalizability of High-Resolution
Image Classification with Memory-Efficient Transformers" (its paper: arXiv 2412.11237).
`published_runs.csv` is a compiled table of facts. Computed from the logs are the epochs of
take-off alone: `statistics.take_off_epoch` of the training accuracy, blank where the run did not
take off and for traffic signs.

Columns are named as in `RunConfig`. What was decided where a run's sources disagree:

- canvas: the run's name, since some logs state the patch count of another canvas (`note`);
- n_train, n_test: the only sizes for which every logged accuracy is a whole number of images;
- fraction, chance: of the traffic signs, the share of the photographs that these sizes amount to,
  and that of the most frequent class among those tested on;
- mask_k, mask_p: the log's configuration; both 0 where nothing was masked (k = 0 or p = 0);
- stroke_width: what was asked for, in px at 28 px; blank where the name does not say, and drawn
  in whole pixels (1.4 to 1.9 drew 1 px, 2.0 to 2.8 drew 2 px);
- noise: the generator (`bezier` with that whole-pixel stroke); blank for runs of another naming;
- seed: as in the name, though nearly all logs print seed 0: read the spread as that of repeats;
- diversity_weight: the log's, or where it has none (some traffic signs) the name's.

`complete` is False, and `note` says so, where a run stopped early; `note` also marks logs whose
curves are those of another log. A run filed under two categories has a row in each.
"""

from functools import cache
from importlib.resources import files

import pandas as pd

from ipslib.datasets.megapixel_mnist.config import TASKS, chance_level
from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.tables import require_columns

# The run that others are read against: small canvas, nothing masked, and its curve is here.
REFERENCE = "results_28_28_1500_1500_50n_1000d_K_00_P_00"  # of Attention_Masking
_MEASURES = {
    "accuracy": "test",
    "train_accuracy": "train",
    "best_accuracy": "best",
    "take_off_epoch": "take_off",
}
_TASKS = (*TASKS, "sign")
_WIDE = [f"{split}_{task}" for split in _MEASURES.values() for task in _TASKS]
_COUNTS = ("digit_size", "canvas", "n_noise", "n_train", "n_test", "seed")


@cache
def _read(name: str) -> pd.DataFrame:
    with files(__package__).joinpath(name).open() as file:
        return pd.read_csv(file, dtype={"log": str})


def load_published(category: str | None = None) -> pd.DataFrame:
    """One row per run and category, with `{test,train,best}_{task}` accuracies in 0..1, and
    `take_off_{task}` epochs.

    Args:
        category: one of the study's categories, such as `O2I_datasize`; all of them if None.

    Raises:
        IpslibError: the category is unknown.
    """
    table = _read("published_runs.csv").fillna({"note": ""})
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
        (over epochs), `chance`, `took_off` (1 or 0), `take_off_epoch` and `o2i_ratio`.

    Raises:
        IpslibError: category or field unknown, or no run left.
    """
    runs = load_published(category)
    if not incomplete:
        runs = runs[runs["complete"]]
    require_columns(runs.drop(columns=_WIDE), fields, "published runs")
    for field, wanted in fields.items():
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
    long["chance"] = long["chance"].fillna(long["task"].map({t: chance_level(t) for t in TASKS}))
    long["took_off"] = long["take_off_epoch"].notna().astype(float).where(long["task"] != "sign")
    long["o2i_ratio"] = long["digit_size"] ** 2 / long["canvas"] ** 2
    return _whole_numbers(long)


def published_curve() -> pd.DataFrame:
    """The training of the `REFERENCE`: one row per epoch (from 1) and task with `loss` and
    `accuracy` on the training set, as logged."""
    return _read("published_curve.csv").copy()


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Counts and sizes as integers again where the rows left have no blank."""
    return table.astype({name: int for name in _COUNTS if table[name].notna().all()})
