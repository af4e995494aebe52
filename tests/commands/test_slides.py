import pytest

from ipslib.__main__ import main

STANDIN = ["--train", "2", "--test", "2", "--side", "256"]
PREPARE = ["--tile", "32", "--mpp", "1", "--backbone", "resnet18", "--weights", "none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    assert main(["slides", "standin", str(folder / "standin"), *STANDIN]) == 0
    return folder


def prepare(folder, *options: str) -> int:
    images = str(folder / "standin" / "images")
    return main(["slides", "prepare", images, str(folder / "bags"), *PREPARE, *options])


def annotations(folder) -> list[str]:
    return ["--annotations", str(folder / "standin" / "annotations")]


def test_prepare_then_check(folder, capsys):
    labels = ["--labels", str(folder / "standin" / "reference.csv")]
    known = annotations(folder)
    assert prepare(folder, "--stages", "1", *known, *labels) == 0
    assert "4 bags made, 0 reused, 0 slides left out" in capsys.readouterr().out
    assert prepare(folder, "--stages", "1", *known, *labels) == 0
    assert "0 bags made, 4 reused" in capsys.readouterr().out
    assert main(["slides", "check", str(folder / "bags"), *labels]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train: 2 bags, 1 with tumour; patches ")
    assert lines[1].endswith("patch labels in 2")
    assert main(["slides", "check", str(folder / "bags")]) == 1  # test slides have no label
    assert "test_501: wanted a label" in capsys.readouterr().out


def test_bags_made_anew_say_why(folder, capsys):
    own = ["--groups", "own=tumour", "a=b=ignore"]
    assert prepare(folder, "--stages", "1", *annotations(folder), *own) == 0
    said = capsys.readouterr().out
    assert "tumor_501: made anew" in said and "groups" in said


def test_a_mistake_is_one_sentence(folder, capsys):
    prepare(folder, "--stages", "1")
    assert prepare(folder, "--stages", "2") == 2
    assert "ipslib: " in capsys.readouterr().err
    for wrong in ("Tumr", "Tumr=tumor", "=tumour"):
        assert prepare(folder, "--groups", wrong) == 2
        assert "--groups" in capsys.readouterr().err
