from unittest.mock import Mock

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ipslib.errors import IpslibError
from ipslib.runs import profiles
from ipslib.runs.profiles import committed_overnight
from ipslib.study import session
from ipslib.study.findings import Finding
from ipslib.study.session import Study

BASE = "{digits: auto, canvas: 84, patch_size: 28, n_noise: 0, memory_size: 3, iter_size: 3}"


@pytest.fixture
def study(project, monkeypatch):
    """Builds the Study of a notebook in a project in miniature; no network, no MNIST."""
    monkeypatch.setattr(profiles, "find_source", lambda: "embedded")
    project.add("01_o2i_datasize", "pass")
    project.set("quick", "base", BASE)

    def build(notebook="01_o2i_datasize", profile="quick", **changes):
        return Study(notebook, profile, **changes)

    return build


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "results"


def test_the_base_is_the_profiles_and_overrides_change_it(study):
    base = study().base
    assert (base.data.canvas, base.model.memory_size, base.model.iter_size) == ((84, 84), 3, 3)
    changed = study(overrides={"memory_size": 5, "canvas": [112, 140]})
    assert changed.base == base.replace(memory_size=5, canvas=[112, 140])
    assert changed.config(digit_size=20, seed=4) == changed.base.replace(digit_size=20, seed=4)


def test_only_paper_with_its_own_overrides_has_the_published_scale(study, project):
    own = {"canvas": 112}
    project.set("paper", "base", BASE)
    project.set("paper", "01_o2i_datasize", "overrides: {canvas: 112}")
    assert study(profile="paper", overrides=own).same_scale
    assert not study(profile="paper").same_scale
    assert not study(profile="paper", overrides=own | {"epochs": 1}).same_scale
    assert not study(profile="quick", overrides=own).same_scale


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"notebook": "01_o2i_datasise"}, "'01_o2i_datasize'"),
        ({"profile": "quik"}, "'quick'"),
        ({"overrides": {"memory_sise": 3}}, "'memory_size'"),
        ({"overrides": {"digits": "mnits"}}, "'mnist'"),
        ({"overrides": {"patch_size": 100}}, "patch_size|canvas"),
    ],
)
def test_what_is_wrong_is_refused_before_any_work(study, wrong, hint, outputs, monkeypatch):
    if "digits" not in wrong.get("overrides", {}):
        monkeypatch.setattr(profiles, "find_source", None)  # is not asked first
    with pytest.raises(IpslibError, match=hint) as refusal:
        study(**wrong)
    assert "\n" not in str(refusal.value)
    assert not outputs.exists()


def test_the_digits_are_announced_and_are_part_of_every_run(study, monkeypatch):
    embedded = study()
    assert "IPSLIB_DATA" in repr(embedded)  # how to have the real ones
    assert embedded.config().data.digits == "embedded"
    monkeypatch.setattr(profiles, "find_source", lambda: "mnist")
    real = study()
    assert "MNIST" in repr(real) and "quick" in repr(real)
    assert real.config().id != embedded.config().id  # never mixed
    monkeypatch.setattr(profiles, "find_source", lambda: 1 / 0)  # what is named is not looked for
    assert study(overrides={"digits": "mnist"}).base.data.digits == "mnist"


def test_runs_tables_and_figures_lie_in_the_profiles_folders(study, outputs, monkeypatch):
    run_all = Mock(return_value=["record"])
    monkeypatch.setattr(session, "run_all", run_all)
    built = study("01", jobs=3)  # a number is enough
    assert built.run([built.base]) == ["record"]
    run_all.assert_called_once_with([built.base], built.store, jobs=3)
    assert built.store.folder == outputs / "quick" / "records"
    built.save_table("accuracy", pd.DataFrame({"a": [1]}))
    figure, _ = plt.subplots()
    built.save_figure("accuracy", figure)
    plt.close(figure)
    assert (outputs / "quick" / "tables" / "01_accuracy.csv").read_text() == "a\n1\n"
    assert (outputs / "quick" / "figures" / "01_accuracy.png").is_file()


def test_a_field_set_by_the_notebook_is_not_overridden_silently(study):
    with pytest.raises(IpslibError, match="n_train"):
        study(overrides={"n_train": 50}).config(n_train=100)


def test_digit_sizes_and_noise_counts_go_in_pairs():
    pairs = Study.digit_settings([14, 28], [8, 4])
    assert pairs == [{"digit_size": 14, "n_noise": 8}, {"digit_size": 28, "n_noise": 4}]
    with pytest.raises(IpslibError, match="noise_counts"):
        Study.digit_settings([14, 28], [8])


def test_published_scale_runs_are_found_in_the_precision_they_were_made_in(
    study, project, monkeypatch
):
    asked = []
    monkeypatch.setattr(session, "run_all", lambda configs, *_, **__: asked.extend(configs))
    monkeypatch.setattr(session.RecordStore, "find", lambda _, c: c.training.precision == "bf16")
    for profile in ("quick", "paper"):
        project.set(profile, "base", BASE)
        study(profile=profile).run([study(profile=profile).config(seed=1)])
    study(profile="paper", overrides={"precision": "fp32"}).run([study().config(seed=2)])
    assert [config.training.precision for config in asked] == ["fp32", "bf16", "fp32"]


def test_results_say_what_made_them(study):
    old = {"config": {}, "provenance": {"commit": "a1"}}
    new = {"config": {"precision": "bf16"}, "provenance": {"commit": "b2"}, "arithmetic": 2}
    said = study().made_of([old, new, old])
    for part in ("3 runs", "more than one version", "arithmetic 1 and 2", "in bf16 and fp32"):
        assert part in said
        assert part not in study().made_of([old, old])
    assert "arithmetic 1, commit a1" in study().made_of([old, old])


def test_a_finding_is_stated_beside_the_committed_one_of_the_night(study, project):
    finding = Finding("a claim", "a against b", 1, effect=0.1, notebook="01_o2i_datasize")
    night = committed_overnight().tables
    night.mkdir(parents=True)
    finding._replace(effect=0.2, source="MNIST").save(night / "01_finding.json")
    finding._replace(notebook="02_other").save(night / "02_finding.json")
    built = study("01")
    told = built.finding(finding, figure="accuracy").cells
    assert list(told["profile"]) == ["quick", "overnight, committed (MNIST)"]
    assert list(told["our effect"]) == ["+10 points", "+20 points"]
    alone = built.finding(None, figure="accuracy").cells
    assert list(alone["our effect"]) == ["+20 points"]
    assert not list(built.layout.tables.glob("*_finding.json"))
