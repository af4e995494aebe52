import json
import os
import re
from urllib.parse import unquote

import pytest

from ipslib.commands.notebooks import Execution
from ipslib.commands.study import build_index, read_summary, run_study
from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.runs.profiles import Layout, committed_overnight

ROW = {
    "title": "A", "state": "done", "minutes": 0.5, "error": "", "made": 2, "reused": 1, "failed": 0,
}  # fmt: skip
RECORD = """
import os, pathlib
records = pathlib.Path(os.environ["IPSLIB_OUTPUTS"], "quick", "records")
(records / f"{size}.json").write_text("{}")
"""


def test_a_study_goes_on_after_a_failure_and_a_second_call_runs_only_what_failed(project, capsys):
    project.add("01_bad", "1 / 0")
    project.add("02_good", RECORD)

    assert run_study("quick") == 1
    layout = Layout.of("quick")
    rows = json.loads(layout.summary.read_text())
    assert [row["state"] for row in rows.values()] == ["failed", "done"]
    printed = capsys.readouterr()
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "01_bad.failed.ipynb" in printed.out and "index.html" in printed.out
    assert layout.index.is_file()

    project.add("01_bad", "'mended'")
    assert run_study("quick") == 0
    err = capsys.readouterr().err
    assert "01_bad: running" in err
    assert "02_good: up to date" in err


def test_a_mistyped_parameter_stops_the_study_before_anything_is_written(project):
    project.add("01_good", "1")
    with pytest.raises(IpslibError, match="'size'"):
        run_study("quick", ["01"], parameters={"siz": 3})
    assert not Layout.of("quick").folder.exists()


def test_what_a_profile_leaves_to_the_night_is_linked_and_not_executed(project):
    project.add("01_good", "1")
    project.add("02_long", "1 / 0", title="A long one", profile="overnight")
    executed = write_atomically(committed_overnight().notebooks / "02_long.ipynb", "{}")

    assert run_study("quick") == 0
    layout = Layout.of("quick")
    assert json.loads(layout.summary.read_text()).keys() == {"01_good"}
    page = layout.index.read_text()
    link = re.search(r'href="([^"]*)">A long one \(overnight\)', page)[1]
    assert (layout.folder / unquote(link)).samefile(executed)
    with pytest.raises(IpslibError, match="'quick' has no 02_long.* in overnight"):
        run_study("quick", ["02"])


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
                yield path, Execution(path.stem)

        monkeypatch.setattr("ipslib.commands.study.execute_all", execute_all)

        def call(*names, **parameters):
            begun.clear(), capsys.readouterr()
            layout = Layout.of("quick").create()
            assert run_study("quick", names, parameters=parameters) == 0
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
        assert "01_good" in begun and part in said
        path.touch()
        assert study()[0] == []

    def test_one_notebook_keeps_the_rows_of_the_others_that_there_still_are(self, study):
        layout = Layout.of("quick").create()
        layout.summary.write_text(json.dumps({"01_good": ROW, "05_removed": ROW}))
        assert study("99")[0] == ["99_summary"]
        assert read_summary(layout).keys() == {"01_good", "99_summary"}

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
            assert f"files of {part}" in said
        begun, said, _ = study(**named | {"rate": 0.1})
        assert begun == ["01_good", "99_summary"] and "rate" in said and "size" not in said


class TestPage:
    """The page that links every notebook, table and figure."""

    @pytest.fixture
    def layout(self, project):
        return Layout.of("quick").create()

    def test_files_stand_under_their_notebook_and_every_link_leads_to_a_file(self, layout):
        for name in (
            "notebooks/01_a.html", "notebooks/01_a.ipynb", "tables/01_grid.csv",
            "figures/01_bars and more.png", "figures/09_map.png", "tables/77_other.csv",
        ):  # fmt: skip
            write_atomically(layout.folder / name, "x")
        rows = {"01_a": ROW | {"title": "01 - Size & number?"}, "09_b": ROW | {"title": "09 - B"}}
        page = build_index(layout, rows).read_text()
        first, ninth, others = page.split("<section>")[1:]
        assert "01 - Size &amp; number?" in first and "2 runs made, 1 reused" in first
        assert "01_grid.csv" in first and "01_bars" in first and "09_map" in ninth
        assert "77_other.csv" in others
        links = re.findall(r'(?:href|src)="([^"]*)"', page)
        assert len(links) == 9
        assert all((layout.folder / unquote(link)).is_file() for link in links)

    def test_a_failed_notebook_shows_its_error_and_the_partial_copy(self, layout):
        write_atomically(layout.notebooks / "01_a.failed.ipynb", "{}")
        failed = ROW | {"state": "failed", "error": "no <digits>"}
        page = build_index(layout, {"01_a": failed}).read_text()
        assert "no &lt;digits&gt;" in page and 'href="notebooks/01_a.failed.ipynb"' in page

    def test_a_broken_summary_says_what_to_do(self, layout):
        assert read_summary(layout) == {}
        layout.summary.write_text("{")
        with pytest.raises(IpslibError, match="summary.json"):
            read_summary(layout)
