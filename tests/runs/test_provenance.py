"""What runs are called, and what made them."""

import csv
import re
import subprocess

import pytest

from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs.provenance import code_version, parse_run_name, provenance, run_name
from tests.tiny import TINY

# Columns that name and log agree on; README.md says where a log's own columns are stale.
NAMED = {name: name for name in ("digit_size", "n_noise", "seed", "diversity_weight")}
NAMED |= {"n_train_in_name": "n_train", "thickness_in_name": "stroke_width"}
NAMED |= {"mask_K_in_name": "mask_k", "mask_p_in_name": "mask_p"}


def test_published_names_say_what_their_rows_and_logs_say_and_come_back(shared):
    with (shared / "published" / "runs.csv").open() as table:
        rows = [r for r in csv.DictReader(table) if re.match(r"results(_\d+){5}n", r["name"])]
    assert len(rows) > 120
    for row in rows:
        fields = parse_run_name(row["name"])
        assert fields["canvas"] == [int(row["canvas"])] * 2, row["name"]
        for column, field in NAMED.items():
            if row[column]:
                assert fields[field] == float(row[column]), (row["name"], column)

        config = run_config(fields)
        if row["category"] != "Unfiled":
            assert config.data.patch_size == int(row["patch_size"]), row["name"]
            assert config.data.n_train == float(row["n_train_inferred"]), row["name"]
            assert config.model.encoder == row["enc_type"], row["name"]
            assert (config.model.weights != "none") == (row["pretrained"] == "True"), row["name"]
            trained_semantic = row["semantic_diversity_loss"] == "True"
            assert (config.training.semantic_weight > 0) == trained_semantic, row["name"]

        name = run_name(config)
        assert run_config(parse_run_name(name)) == config
        # What a name may leave out or say in a second way.
        spoken = re.sub(r"_bezier|_PS_50|_K_00_P_00", "", row["name"]).replace("_M_", "_K_")
        assert name == re.sub(r"(?<=\d)n(?!_\d+d)", "n_5000d", spoken)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "28_28_3000_3000_800n_1000d"),
        ({"canvas": [400, 300], "n_noise": 0}, "28_28_400_300_0n_1000d"),
        ({"mask_k": 5, "mask_p": 0.05}, "28_28_3000_3000_800n_1000d_K_05_P_005"),
        ({"mask_k": 40, "mask_p": 1.0}, "28_28_3000_3000_800n_1000d_K_40_P_10"),
        ({"stroke_width": 2.0, "seed": 3}, "28_28_3000_3000_800n_1000d_2_0_seed_3"),
        ({"stroke_width": 1.04, "n_train": 1}, "28_28_3000_3000_800n_1d_1_04"),
        ({"noise": "line", "patch_size": 25}, "28_28_3000_3000_800n_1000d_original_PS_25"),
        (
            {"diversity_weight": 0.5, "semantic_weight": 1.0, "weights": "imagenet_v1"},
            "28_28_3000_3000_800n_1000d_W_0_5_Res_18",
        ),
        (
            {"encoder": "resnet50", "weights": "imagenet_v2", "frozen": True},
            "28_28_3000_3000_800n_1000d_Res_50_V2",
        ),
    ],
)
def test_what_the_study_varies_survives_its_name(fields, name):
    config = run_config(fields)
    assert run_name(config) == f"results_{name}"
    assert run_config(parse_run_name(f"results_{name}")) == config


@pytest.mark.parametrize("name", ["", "results_28_28", "results_28_28_9_9_1n_1d_P_2", "x_results"])
def test_another_name_is_refused(name):
    with pytest.raises(IpslibError, match="run name"):
        parse_run_name(name)


def test_provenance_tells_the_digits_and_when():
    said = provenance(TINY, "cpu")
    assert said["digit_source"] == "embedded" and said["finished"].endswith("+00:00")
    for split in ("train", "test"):
        assert said["digits_sha256"][split] == load_digits("embedded", split).sha256


def commit_all(folder):
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"]):
        subprocess.run([*git, *command], check=True)


def test_the_version_of_the_code_is_its_own_commit_or_a_hash_of_it(monkeypatch, tmp_path):
    root = tmp_path / "checkout" / "copy"
    code, table = root / "ipslib" / "code.py", root / "outputs" / "table.csv"
    for path in (code, table):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    plain = code_version(root)
    assert plain.startswith("code-")
    commit_all(root.parent)  # a checkout that the copy only lies in
    assert code_version(root) == plain
    code.write_text("2")
    assert code_version(root) != plain
    commit_all(root)
    commit = code_version(root)
    assert re.fullmatch("[0-9a-f]{12}", commit)
    table.write_text("2")  # what a study writes over its results does not mark the commit
    assert code_version(root) == commit
    code.write_text("3")
    assert code_version(root) == f"{commit}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert code_version(root).startswith("code-")
