import json
import os

import nbformat
import pytest

from ipslib.__main__ import main
from ipslib.commands.study import pair_notebooks, results_fingerprint, run_study, source_fingerprint
from ipslib.errors import IpslibError
from ipslib.runs.profiles import Layout

RECORD = """
import os, pathlib
records = pathlib.Path(os.environ["IPSLIB_OUTPUTS"], "quick", "records")
(records / f"{size}.json").write_text("{}")
"""


def test_a_study_goes_on_after_a_failure_and_a_second_call_runs_only_what_failed(project, capsys):
    project.add("01_bad", "1 / 0")
    project.add("02_good", RECORD)
    project.add("03_more", RECORD.replace("{size}", "more"))

    assert run_study("quick", root=project.root) == 1
    layout = Layout.of("quick", root=project.root)
    rows = json.loads(layout.summary.read_text())
    assert [row["state"] for row in rows.values()] == ["failed", "done", "done"]
    printed = capsys.readouterr()
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "01_bad.failed.ipynb" in printed.out and "index.html" in printed.out
    assert layout.index.is_file()

    project.add("01_bad", "'mended'")
    assert run_study("quick", root=project.root) == 0
    err = capsys.readouterr().err
    assert "01_bad: running" in err
    assert "02_good: up to date" in err and "03_more: up to date" in err


def test_one_notebook_keeps_the_rows_of_the_others(project):
    project.add("02_good", "1")
    layout = Layout.of("quick", root=project.root).create()
    counts = {"made": 1, "reused": 0, "failed": 0}
    kept = {"title": "A", "state": "done", "minutes": 1.0, "error": ""} | counts
    layout.summary.write_text(json.dumps({"01_other": kept, "05_removed": kept}))
    project.add("01_other", "1")
    assert run_study("quick", ["2"], root=project.root) == 0
    assert json.loads(layout.summary.read_text()).keys() == {"01_other", "02_good"}


def test_a_mistyped_parameter_stops_the_study_before_anything_is_written(project):
    project.add("01_good", "1")
    with pytest.raises(IpslibError, match="no parameter 'siz' .did you mean 'size'"):
        run_study("quick", ["01"], parameters={"siz": 3}, root=project.root)
    assert not Layout.of("quick", root=project.root).folder.exists()


def test_a_fingerprint_follows_text_parameters_base_records_results_and_data(project, monkeypatch):
    path, root = project.add("01_good", "1"), project.root
    layout = Layout.of("quick", root=root).create()
    values = {"size": 3}
    seen = [source_fingerprint(path, "quick", values, root)]
    seen.append(source_fingerprint(path, "quick", {"size": 4}, root))
    project.set("quick", "base", "memory_size: 3\n")
    seen.append(source_fingerprint(path, "quick", values, root))
    path.write_text(path.read_text() + "\n# changed")
    seen.append(source_fingerprint(path, "quick", values, root))
    assert seen[-1] == source_fingerprint(path, "quick", values, root)
    (layout.figures / "02_of_another.png").write_text("x")
    seen.append(results_fingerprint(path, layout, root))
    for name in ("records/x.json", "tables/01_t.csv", "figures/01_f.png", "notebooks/01_good.html"):
        (layout.folder / name).write_text("x")
        seen.append(results_fingerprint(path, layout, root))
    (root / "data" / "MNIST" / "raw").mkdir(parents=True)
    (root / "data" / "MNIST" / "raw" / "digits").write_text("x")
    seen.append(results_fingerprint(path, layout, root))
    assert len(set(seen)) == len(seen)


def test_the_summary_is_out_of_date_when_another_notebook_saved_something_else(project):
    path, root = project.add("99_summary", "1"), project.root
    layout = Layout.of("quick", root=root).create()
    (layout.tables / "03_loss.csv").write_text("1")
    seen = [results_fingerprint(path, layout, root)]
    (layout.tables / "03_loss.csv").write_text("1.5")
    seen.append(results_fingerprint(path, layout, root))
    (layout.figures / "03_phases.png").write_text("x")
    seen.append(results_fingerprint(path, layout, root))
    assert len(set(seen)) == len(seen)


def test_paired_notebooks_have_a_kernel_and_keep_outputs_of_unchanged_cells(project):
    path = project.add("01_good", "size + 1")
    (paired,) = pair_notebooks(project.root)
    assert paired.stat().st_mtime == pytest.approx(path.stat().st_mtime)
    assert pair_notebooks(project.root) == []

    notebook = nbformat.read(paired, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="4")]
    nbformat.write(notebook, paired)
    os.utime(paired, (0, 0))
    assert pair_notebooks(project.root) == [paired]
    again = nbformat.read(paired, as_version=4)
    assert again.cells[-1].outputs[0].text == "4"
    assert again.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["stduy", "quick"], "there is no command 'stduy' (did you mean 'study'?)"),
        (["study", "qiuck"], "there is no profile 'qiuck' (did you mean 'quick'?)"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_status_2(arguments, sentence, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"ipslib: {sentence}\n"
