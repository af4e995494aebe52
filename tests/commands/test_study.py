import json
import os

import nbformat
import pytest

from ipslib.__main__ import main
from ipslib.commands.notebooks import Execution
from ipslib.commands.study import pair_notebooks, run_study
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

    assert run_study("quick") == 1
    layout = Layout.of("quick")
    rows = json.loads(layout.summary.read_text())
    assert [row["state"] for row in rows.values()] == ["failed", "done", "done"]
    printed = capsys.readouterr()
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "01_bad.failed.ipynb" in printed.out and "index.html" in printed.out
    assert layout.index.is_file()

    project.add("01_bad", "'mended'")
    assert run_study("quick") == 0
    err = capsys.readouterr().err
    assert "01_bad: running" in err
    assert "02_good: up to date" in err and "03_more: up to date" in err


def test_one_notebook_keeps_the_rows_of_the_others(project):
    project.add("02_good", "1")
    layout = Layout.of("quick").create()
    counts = {"made": 1, "reused": 0, "failed": 0}
    kept = {"title": "A", "state": "done", "minutes": 1.0, "error": ""} | counts
    layout.summary.write_text(json.dumps({"01_other": kept, "05_removed": kept}))
    project.add("01_other", "1")
    assert run_study("quick", ["2"]) == 0
    assert json.loads(layout.summary.read_text()).keys() == {"01_other", "02_good"}


def test_a_mistyped_parameter_stops_the_study_before_anything_is_written(project):
    project.add("01_good", "1")
    with pytest.raises(IpslibError, match="no parameter 'siz' .did you mean 'size'"):
        run_study("quick", ["01"], parameters={"siz": 3})
    assert not Layout.of("quick").folder.exists()


class TestReuse:
    """A notebook is executed again only if anything that it was made of is another."""

    @pytest.fixture
    def study(self, project, monkeypatch, capsys):
        """Executes nothing: returns which notebooks would be, and what was said."""
        monkeypatch.setattr("ipslib.paths._TICK", 0)
        project.add("01_good", "1")
        project.add("99_summary", "1")
        begun = []

        def execute_all(tasks, layout, **_):
            for path, _ in tasks:
                begun.append(path.stem)
                yield path, Execution(path.stem, made=0, reused=0, failed=0, minutes=0.0)

        def call(**parameters):
            begun.clear(), capsys.readouterr()
            layout = Layout.of("quick").create()
            with monkeypatch.context() as patch:
                patch.setattr("ipslib.commands.study.execute_all", execute_all)
                assert run_study("quick", parameters=parameters) == 0
            return list(begun), capsys.readouterr().err, layout

        return call

    def write_again(self, path, text):
        """Other content of the same size and time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns) if path.exists() else None
        path.write_text(text)
        if times:
            os.utime(path, ns=times)

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("notebooks/01_good.py", "text"),
            ("params/quick/base.yaml", "base settings"),
            ("records/x.json", "records"),
            ("tables/01_t.csv", "results"),
            ("figures/01_f.png", "results"),
            ("notebooks/01_good.html", "results"),
            ("data/MNIST/raw/digits", "data"),
        ],
    )
    def test_what_it_was_made_of_is_known_by_its_content(self, study, project, name, part):
        of_project = part in ("text", "base settings", "data")
        layout = Layout.of("quick")
        path = (project.root if of_project else layout.home) / name
        before = path.read_text() if path.exists() else "a: 1"
        self.write_again(path, before + "1")
        assert study()[0] == ["01_good", "99_summary"]
        assert study()[0] == []
        self.write_again(path, before + "2")
        begun, said, _ = study()
        assert "01_good" in begun and part in said and path.name in said
        path.touch()
        assert study()[0] == []

    def test_what_belongs_to_another_notebook_is_none_of_it_but_of_the_summary(self, study):
        layout = study()[2]
        self.write_again(layout.tables / "02_t.csv", "1")
        assert study()[0] == ["99_summary"]

    def test_files_that_parameters_name_and_images_of_tables_count(self, study, project):
        mine = project.root / "mine"
        self.write_again(mine / "labels.csv", "image;kind\na.png;x\nsub\\b.png;y\n")
        for name in ("a.png", "sub/b.png", "more/deep/c.h5"):
            self.write_again(mine / name, "1")
        named = {"size": "mine/labels.csv", "rate": {"folder": ["mine/more"]}}
        assert study(**named)[0] == ["01_good", "99_summary"]
        assert study(**named)[0] == []
        for name, part in (
            ("labels.csv", "size"), ("a.png", "size"), ("sub/b.png", "size"),
            ("more/deep/c.h5", "rate"),
        ):  # fmt: skip
            self.write_again(mine / name, (mine / name).read_text() + " ")
            begun, said, _ = study(**named)
            assert begun == ["01_good", "99_summary"]
            assert f"files of {part}" in said and name.rpartition("/")[2] in said
        begun, said, _ = study(**named | {"rate": 0.1})
        assert begun == ["01_good", "99_summary"] and "rate" in said and "size" not in said


def test_paired_notebooks_have_a_kernel_and_keep_outputs_of_unchanged_cells(project):
    path = project.add("01_good", "size + 1")
    (paired,) = pair_notebooks()
    assert paired.stat().st_mtime == pytest.approx(path.stat().st_mtime)
    assert pair_notebooks() == []

    notebook = nbformat.read(paired, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="4")]
    nbformat.write(notebook, paired)
    assert pair_notebooks() == []
    path.write_text(path.read_text().replace("rate = 0.1", "rate = 0.2"))
    os.utime(paired, (0, 0))
    assert pair_notebooks() == [paired]
    again = nbformat.read(paired, as_version=4)
    assert again.cells[-1].outputs[0].text == "4"
    assert again.metadata.kernelspec.name == "python3"


def test_an_ipynb_that_something_else_than_jupyterlab_changed_is_kept_and_named(project, capsys):
    path = project.add("01_good", "size + 1")
    (paired,) = pair_notebooks()
    notebook = nbformat.read(paired, as_version=4)
    notebook.cells[-1].source = "size + 2"
    nbformat.write(notebook, paired)
    later = path.stat().st_mtime + 60
    os.utime(paired, (later, later))
    assert pair_notebooks() == []
    assert paired.name in capsys.readouterr().err
    assert nbformat.read(paired, as_version=4).cells[-1].source == "size + 2"


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
