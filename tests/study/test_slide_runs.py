import attrs
import numpy as np
import pytest

from ipslib.datasets import synthetic
from ipslib.datasets.slides.bags import describe_bags
from ipslib.study.session import Study
from ipslib.study.slide_figures import finding_curves, slide_to_bag
from ipslib.study.slide_material import find_material
from ipslib.study.slide_runs import (
    bag_table,
    run_slides,
    shown_slides,
    slide_table,
    slides_in_words,
)

SMALL = {"n_train": 4, "n_test": 4, "side": 256, "mpp": 8.0, "tile_size": 16}
WAYS = {"few": {}, "more": {"memory_size": 20}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Material, test set and runs of a stand-in of the smallest size."""
    folder = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "project_root", lambda: folder)
        patch.setenv("IPSLIB_OUTPUTS", str(folder / "outputs"))
        material = find_material("", "", "", "", standin=SMALL)
        data = attrs.asdict(describe_bags(material.bags, material.labels))
        base = {"dataset": "slides", "encoder": "features", "position_encoding": False} | data
        study = Study("12_camelyon16", "smoke", base=base | {"batch_size": 2}, jobs=1)
        runs = run_slides(study, WAYS, [0, 1], material, radius=200)
        yield material, study.base.data.open_split("test"), runs


def test_every_run_answers_every_test_slide(made):
    _, test, runs = made
    assert [(each.way, each.record["config"]["seed"]) for each in runs.answered] == [
        ("few", 0), ("few", 1), ("more", 0), ("more", 1),
    ]  # fmt: skip
    for each in runs.answered:
        assert [answer.name for answer in each.answers] == test.names
        # The answers are those of the last epoch.
        right = np.mean([(a.score > 0) == a.label for a in each.answers])
        assert right == each.record["result"]["accuracy"]["tumour"]


def test_the_table_is_of_means_over_seeds(made):
    _, test, runs = made
    table = slide_table(runs, test).set_index("way")
    aucs = [each.record["result"]["measures"]["auc"]["tumour"] for each in runs.answered]
    assert table["auc"].tolist() == pytest.approx([np.mean(aucs[:2]), np.mean(aucs[2:])])
    assert (table["n"] == 2).all() and (table["chance"] == 0.5).all()
    assert (table["auc_low"] <= table["auc"]).all() and (table["auc"] <= table["auc_high"]).all()
    shown = shown_slides(slide_table(runs, test))
    assert shown["kept patches"].tolist() == ["few", "more"]
    assert shown["AUC (%)"].tolist() == [f"{100 * auc:.1f}" for auc in table["auc"]]


def test_the_reading_tells_what_lies_above_chance(made):
    _, test, runs = made
    table = slide_table(runs, test).assign(auc_low=[0.6, 0.4], froc=np.nan)
    said = slides_in_words(table, len(test))
    assert "The interval lies above chance for few." in said and "FROC" not in said
    table = table.assign(auc_low=0.4, kept_tumour=np.nan, froc=0.25)
    said = slides_in_words(table, len(test))
    assert "No interval lies above chance" in said and "Blindly" not in said
    assert said.endswith("Metastases found (FROC): few: 25 %; more: 25 %.")


def test_the_sets_are_counted(made):
    _, test, _ = made
    (row,) = bag_table({"test": test}).to_dict("records")
    sizes = [test[i].n_patches for i in range(4)]
    assert (row["slides"], row["with_tumour"]) == (4, 2)
    assert (row["fewest_patches"], row["most"]) == (min(sizes), max(sizes))


def test_figures_show_every_tile_and_every_run(made):
    material, test, runs = made
    bag = test[1]
    figure = slide_to_bag(material.open_slide(test.names[1]), bag, title="STAND-IN")
    tiles = sum(len(each.get_paths()) for each in figure.axes[2].collections)
    assert tiles == bag.n_patches and figure.get_suptitle() == "STAND-IN"
    roc, free = finding_curves(runs.answered, title="STAND-IN").axes
    assert len(roc.lines) == len(runs.answered) + 1  # and chance
    assert len(free.lines) == sum(each.froc is not None for each in runs.answered)
