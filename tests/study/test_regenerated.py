import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ipslib.__main__ import main
from ipslib.arithmetic import CURRENT
from ipslib.errors import IpslibError
from ipslib.runs.provenance import SCHEMA
from ipslib.runs.records import RecordStore
from ipslib.study.published import REFERENCE
from ipslib.study.published_configs import published_runs
from ipslib.study.regenerated import (
    Regenerated,
    as_markdown,
    regenerated,
    renew_readme,
    repeats,
)

ROOT = Path(__file__).resolve().parents[2]
MARKED = "# A title\n<!-- made by: python -m ipslib queue --readme -->\nold\n{}\nThe rest.\n"
END = "<!-- end of what was made -->"


@pytest.fixture
def store(tmp_path) -> RecordStore:
    folder = tmp_path / "records"
    folder.mkdir()
    return RecordStore(folder)


def write(store: RecordStore, config, version: int = CURRENT) -> None:
    path = store.folder / f"{config.id_by(version)}.json"
    record = {"schema": SCHEMA, "id": path.stem, "arithmetic": version, "config": config.flat()}
    path.write_text(json.dumps(record))


def test_the_readme_counts_the_records_that_are_committed(store, tmp_path):
    listed = subprocess.run(
        ["git", "ls-files", "outputs/paper/records/*.json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout: what is committed is not known")
    for name in listed.stdout.split():
        shutil.copy(ROOT / name, store.folder)
    copy = tmp_path / "README.md"
    shutil.copy(ROOT / "outputs" / "README.md", copy)
    assert not renew_readme(copy, store), "run: python -m ipslib queue --readme"


def test_runs_are_counted_once_by_category_whatever_their_precision(store):
    runs = published_runs()
    nothing = regenerated(store)
    assert sum(each.planned for each in nothing.values()) == len(runs)
    assert {(each.done, each.earlier) for each in nothing.values()} == {(0, 0)}
    assert nothing["O2I_datasize: its figure"] == (0, 0, 16)
    thick = next(run for run in runs if run.category == "Digit_Thickness")
    for config in (runs[0].config, runs[1].config.replace(precision="bf16"), thick.config):
        write(store, config)
    write(store, runs[0].config.replace(precision="bf16"))  # the same run again
    write(store, runs[2].config.replace(epochs=1))  # no published one
    for config in (thick.config, runs[3].config):  # the first is done by today's, too
        write(store, config, version=1)
    counts = regenerated(store)
    assert counts["O2I_datasize: its figure"] == (2, 1, 16)
    assert counts["Digit_Thickness"][:2] == (1, 0)
    assert sum(each.done for each in counts.values()) == 3


def test_repeats_are_the_same_setting_from_any_start_seed_and_arithmetic(store):
    own, published = (
        next(run.config for run in published_runs(start=start) if run.name == REFERENCE)
        for start in ("own", "published")
    )
    wanted = [published, own, own.replace(seed=2)]
    for config in (*reversed(wanted), own.replace(epochs=1), own.replace(n_noise=40)):
        write(store, config)
    write(store, own, version=1)
    for config in (own, published):
        found = [record["id"] for record in repeats(config, store)]
        assert found[0] == published.id and found[-1] == own.id_by(1)
        assert set(found) == {each.id for each in wanted} | {own.id_by(1)}


def test_the_table_ends_with_the_sum():
    table = as_markdown({"One": Regenerated(1, 0, 2), "Other": Regenerated(0, 3, 5)})
    rows = ["| One | 1 of 2 | 0 |", "| Other | 0 of 5 | 3 |", "| **all** | 1 of 7 | 3 |"]
    assert table.splitlines()[2:] == rows


def test_only_what_is_between_the_marks_is_renewed(store, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED.format(END))
    assert renew_readme(readme, store)
    text = readme.read_text()
    assert text.startswith("# A title\n") and text.endswith(f"|\n{END}\nThe rest.\n")
    assert "old" not in text and "0 of 16" in text
    assert not renew_readme(readme, store)


@pytest.mark.parametrize("text", ["no marks", MARKED.format("")])
def test_a_readme_without_the_marks_is_refused_and_left(store, tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(IpslibError, match="wanted a line .* put them back"):
        renew_readme(readme, store)
    assert readme.read_text() == text


def test_the_command_says_what_it_did(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        "ipslib.study.regenerated.renew_readme", lambda path, store: seen.append((path, store))
    )
    assert main(["queue", "--readme"]) == 0
    assert seen[0][0] == ROOT / "outputs" / "README.md" and seen[0][1].folder.name == "records"
    assert capsys.readouterr().out == "outputs/README.md: up to date\n"
