"""Wrong use of any command: status 2, one line that says what is wanted, and no file."""

import pytest
import torch

from ipslib.__main__ import main
from tests.datasets.images.test_own_images import write_images


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("stduy quick", "'study'"),
        ("study qiuck", "'quick'"),
        ("run smoke -p epochs 1 -p epochs 2", "epochs"),
        ("gpu --device cpu", "--device cpu --smoke"),
        ("gpu --device cpu --smoke --minutes 0", "minutes"),
        ("gpu --device cpu --smoke --jobs 0", "jobs"),
        ("queue --minutes nan", "minutes"),
        ("queue --minutes -1", "minutes"),
        ("slides check nowhere", "nowhere"),
        ("train", "CSV"),
        ("train labels.csv", "--folder"),
        ("train labels.csv --folder runs --patch-sie 9", "--patch-size"),
        ("train labels.csv --folder runs --epoch 9", "--epochs"),
        ("train labels.csv --folder runs --epochs many", "epochs"),
        ("train none.csv --folder runs", "none.csv"),
        ("predict model.ipslib", "IMAGE"),
        ("predict labels.csv 0.png", "labels.csv"),
        ("map model.ipslib 0.png", "--html"),
        ("map model.ipslib 0.png --html a.html --head 0", "--png"),
    ],
)
def test_wrong_use_says_in_a_line_what_is_wanted(
    command, wanted, outputs, tmp_path, capsys, monkeypatch
):
    write_images(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_where_to_go(outputs, capsys):
    assert main(["gpu"]) == 2
    said = capsys.readouterr().err
    assert "GPU" in said and "--device cpu --smoke" in said and said.count("\n") == 1
    assert not outputs.exists()
