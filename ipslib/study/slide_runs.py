"""Runs on slides, each way of keeping patches beside the first, and the table of what they find."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ipslib.datasets.slides.bags import BagDataset
from ipslib.datasets.slides.evaluation import (
    Froc,
    SlideAnswer,
    answer_slides,
    detections,
    froc,
    measure_found,
)
from ipslib.errors import IpslibError
from ipslib.study.arms import run_arms
from ipslib.study.session import Study
from ipslib.study.slide_material import SlideMaterial
from ipslib.study.statistics import auc_interval

_CHANCE_AUC = 0.5
_NOT_TOLD = "No interval lies above chance: whether tumour is found cannot be told."


class Answered(NamedTuple):
    """One run on the test slides."""

    way: str
    record: dict
    answers: list[SlideAnswer]
    found: dict[str, float]  # of `measure_found`
    froc: Froc | None  # None where no metastasis is known


class SlideRuns(NamedTuple):
    """The long form with a first column `arm`, and every run's answers."""

    records: list[dict]
    frame: pd.DataFrame
    answered: list[Answered]


def run_slides(
    study: Study,
    ways: Mapping[str, Mapping[str, object]],
    seeds: Sequence[int],
    material: SlideMaterial,
    *,
    radius: float,
) -> SlideRuns:
    """Train, or look up, the runs of every way, and answer the test slides with each network.

    Args:
        study: whose base run is of slides.
        ways: `{label: fields of RunConfig}`; the first is the reference.
        seeds: of training.
        material: with the outlines of tumour, where there are any.
        radius: in µm, of detections for FROC.
    """
    records, frame = run_arms(study, ways, seeds)
    test, outlines = study.base.data.open_split("test"), material.outlines
    answered = []
    for (way, run_id), _ in frame.groupby(["arm", "id"], sort=False):
        record = next(each for each in records if each["id"] == run_id)
        answers = answer_slides(study.load_network(record), test)
        found = measure_found(answers, test)._asdict()
        curve = _froc(detections(answers, test, outlines, radius=radius))
        answered.append(Answered(way, record, answers, found, curve))
    return SlideRuns(records, frame, answered)


def _froc(slides: list) -> Froc | None:
    try:
        return froc(slides)
    except IpslibError:  # nothing is known of where metastases are
        return None


def slide_table(runs: SlideRuns, test: BagDataset) -> pd.DataFrame:
    """One row a way: means over seeds; the interval of the AUC is over the test slides."""
    n_tumour = int(test.labels.sum())
    rows = []
    for way in dict.fromkeys(each.way for each in runs.answered):
        of_way = [each for each in runs.answered if each.way == way]
        mean = runs.frame[runs.frame["arm"] == way][["accuracy", "auc", "chance"]].mean()
        low, high = auc_interval(mean["auc"], n_tumour, len(test) - n_tumour)
        found = pd.DataFrame([each.found for each in of_way]).mean()
        scores = [each.froc.score for each in of_way if each.froc]
        rows.append(
            {"way": way, "n": len(of_way), "accuracy": mean["accuracy"], "chance": mean["chance"]}
            | {"auc": mean["auc"], "auc_low": low, "auc_high": high}
            | found.to_dict()
            | {"froc": float(np.mean(scores)) if scores else np.nan}
            | {"seconds": np.mean([e.record["timing"]["training_seconds"] for e in of_way])}
        )
    return pd.DataFrame(rows)


def shown_slides(table: pd.DataFrame) -> pd.DataFrame:
    """A `slide_table` as a page shows it: percent under headings with units."""
    bounds = zip(_percent(table["auc_low"], 0), _percent(table["auc_high"], 0), strict=True)
    columns = {"kept patches": table["way"], "seeds": table["n"].astype(str)}
    shares = {name: _percent(table[name]) for name in ("accuracy", "chance", "auc")}
    columns |= {"accuracy (%)": shares["accuracy"], "chance (%)": shares["chance"]}
    columns |= {"AUC (%)": shares["auc"], "its 95 % interval (%)": list(map(" to ".join, bounds))}
    columns |= {
        heading: _percent(table[name])
        for name, heading in {
            "patch_auc": "AUC of patches (%)",
            "attention_auc": "by attention (%)",
            "froc": "FROC (%)",
            "kept_tumour": "kept that are tumour (%)",
            "kept_tumour_random": "blindly (%)",
        }.items()
    }
    return pd.DataFrame(columns | {"training (s)": table["seconds"].round(1)})


def _percent(shares: pd.Series, digits: int = 1) -> list[str]:
    return ["–" if pd.isna(share) else f"{100 * share:.{digits}f}" for share in shares]


def bag_table(sets: Mapping[str, BagDataset]) -> pd.DataFrame:
    """One row a set: slides, those with tumour, and how many patches a slide has."""
    rows = []
    for split, dataset in sets.items():
        sizes = [dataset[i].n_patches for i in range(len(dataset))]
        known = [
            labels for i in range(len(dataset)) if (labels := dataset[i].patch_labels) is not None
        ]
        shares = [labels.float().mean().item() for labels in known if labels.any()]
        rows.append(
            {"set": split, "slides": len(dataset), "with_tumour": int(dataset.labels.sum())}
            | {"fewest_patches": min(sizes), "median": int(np.median(sizes)), "most": max(sizes)}
            | {"tumour_patches": float(np.median(shares)) if shares else np.nan}
        )
    return pd.DataFrame(rows)


def slides_in_words(table: pd.DataFrame, n_slides: int) -> str:
    """The reading of a `slide_table`, numbered.

    Args:
        table: of `slide_table`.
        n_slides: test slides.
    """
    aucs = "; ".join(
        f"{row.way}: {100 * row.auc:.0f} % (95 % interval {100 * row.auc_low:.0f} to "
        f"{100 * row.auc_high:.0f})"
        for row in table.itertuples()
    )
    above = table.loc[table["auc_low"] > _CHANCE_AUC, "way"].tolist()
    lines = [
        f"AUC of {n_slides} test slides, of chance {100 * _CHANCE_AUC:.0f} %: {aucs}. "
        + (f"The interval lies above chance for {', '.join(above)}." if above else _NOT_TOLD)
    ]
    accuracies = "; ".join(f"{r.way}: {100 * r.accuracy:.0f} %" for r in table.itertuples())
    lines.append(
        f"Accuracy, where naming the most frequent class is right in "
        f"{100 * table['chance'].iloc[0]:.0f} %: {accuracies}. It needs a threshold that fits, "
        "which the AUC does not."
    )
    if table["kept_tumour"].notna().all():
        kept = "; ".join(
            f"{r.way}: {100 * r.kept_tumour:.0f} %, {r.kept_tumour / r.kept_tumour_random:.1f} "
            "times as many"
            for r in table.itertuples()
        )
        lines.append(
            f"Blindly drawn patches of a tumour slide are tumour in "
            f"{100 * table['kept_tumour_random'].iloc[0]:.1f} %; kept ones {kept}."
        )
        patches = "; ".join(
            f"{r.way}: {100 * r.patch_auc:.0f} % and {100 * r.attention_auc:.0f} %"
            for r in table.itertuples()
        )
        lines.append(f"AUC of patches, alone and by attention: {patches}.")
    if table["froc"].notna().any():
        scores = "; ".join(
            f"{r.way}: {100 * r.froc:.0f} %" for r in table[table["froc"].notna()].itertuples()
        )
        lines.append(f"Metastases found (FROC): {scores}.")
    return "\n".join(f"{n}. {line}" for n, line in enumerate(lines, start=1))
