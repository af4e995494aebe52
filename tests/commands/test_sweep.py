from pathlib import Path

import pytest
import yaml

from ipslib.__main__ import main
from ipslib.commands.sweep import read_sweep, run_sweep
from ipslib.errors import IpslibError
from ipslib.runs import profiles
from ipslib.runs.profiles import Layout
from ipslib.runs.records import RecordStore
from tests import tiny

TINY = tiny.TINY.replace(epochs=1, warmup_epochs=0).changed()
DIVERGES = {"lr": 10.0, "semantic_weight": 1e6, "weight_decay": 10.0, "epochs": 30}
TABLE = """
from ipslib.runs.profiles import Layout
layout = Layout.of("smoke")
(layout.records / f"{size}.json").write_text("{}")
assert size < 9, "too large"
(layout.tables / "01_size.csv").write_text(str(size))
"""


@pytest.fixture
def sweep_file(tmp_path):
    def write(**said) -> str:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(said))
        return str(path)

    return write


def test_a_grid_is_every_combination_and_runs_are_single_settings(sweep_file):
    grid, runs = {"digit_size": [20, 28], "seed": [0, 1]}, [{"digit_size": 40}, {"epochs": 7}]
    path = sweep_file(fixed={"epochs": 6}, grid=grid, runs=runs)
    sweep = read_sweep(path)
    assert (sweep.profile, sweep.notebook) == ("quick", None)
    pairs = [(20, 0), (20, 1), (28, 0), (28, 1)]
    expected = [{"epochs": 6, "digit_size": size, "seed": seed} for size, seed in pairs]
    assert sweep.settings == [*expected, {"epochs": 6, "digit_size": 40}, {"epochs": 7}]
    assert read_sweep(yaml.safe_load(Path(path).read_text())) == sweep  # as in a notebook


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"grids": {}}, "'grid'"),
        ({"grid": {"seed": 3}}, "grid"),
        ({"fixed": [1], "runs": [{}]}, "fixed"),
        ({"runs": {"seed": 1}}, "runs"),
        ({"runs": ["seed"]}, "runs"),
        ({"fixed": {"seed": 1}}, "no runs"),
        ({"grid": {"seed": []}}, "no runs"),
        ({"profile": "qiuck", "runs": [{}]}, "'quick'"),
    ],
)
def test_a_wrong_sweep_is_refused_with_the_remedy(said, field, sweep_file):
    for source in (said, sweep_file(**said)):
        with pytest.raises(IpslibError, match=field):
            read_sweep(source)


def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path):
    with pytest.raises(IpslibError, match="nowhere.yaml"):
        read_sweep(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("[1]")
    with pytest.raises(IpslibError, match="bad.yaml"):
        read_sweep(tmp_path / "bad.yaml")


def test_the_sweeps_of_the_study_name_runs_that_can_be_made(outputs):
    folder = Path(__file__).resolve().parents[2] / "params" / "sweeps"
    assert read_sweep("params/sweeps/o2i_seeds.yaml") == read_sweep(folder / "o2i_seeds.yaml")
    for path in folder.glob("*.yaml"):
        sweep = read_sweep(path)
        base = profiles.base_config(sweep.profile)
        assert sweep.notebook or [base.replace(**setting) for setting in sweep.settings]


@pytest.mark.parametrize(
    ("settings", "options", "field"),
    [
        ({"runs": [{"seed": 1}, {"memory_sizes": 3}]}, {}, "'memory_size'"),
        ({"runs": [{"seed": 1}], "grid": {"lr": [1.0, "fast"]}}, {}, "lr"),
        ({"runs": [{"seed": 1}]}, {"jobs": 0}, "jobs"),
    ],
)
def test_what_is_wrong_stops_the_sweep_before_anything_is_written(
    outputs, settings, options, field
):
    with pytest.raises(IpslibError, match=field):
        run_sweep({"profile": "smoke", "fixed": TINY} | settings, **options)
    assert not outputs.exists()


def test_a_sweep_runs_here_goes_on_after_a_failure_and_is_reused(outputs, sweep_file, capsys):
    grid, runs = {"seed": [0, 1]}, [DIVERGES, {"seed": 1}]
    path = sweep_file(profile="smoke", fixed=TINY, grid=grid, runs=runs)
    assert main(["sweep", path]) == 1
    head, _, first, second, failed = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "id", "state", "last", "epoch", "on", "test"]
    assert " made " in first and "majority" in first and "%" in first
    assert "seed_1" in second
    assert " failed " in failed and "diverged: " in failed
    [failure] = RecordStore(Layout.of("smoke").records).failures()
    assert failure["reason"] == "diverged"

    swept = run_sweep({"profile": "smoke", "fixed": TINY, "grid": {"seed": [1, 0]}})
    assert [row["state"] for row in swept.rows] == ["reused", "reused"]
    assert [record["config"]["seed"] for record in swept.records] == [1, 0]
    assert swept.n_failed == 0


@pytest.fixture
def notebook(project, outputs):
    return project.add("01_sizes", TABLE, profile="smoke")


def test_a_notebook_is_executed_apart_for_each_setting_and_shares_its_records(
    notebook, outputs, sweep_file, capsys
):
    path = sweep_file(profile="smoke", notebook="01", grid={"size": [9, 3]})
    assert main(["sweep", path]) == 1
    failed, done = capsys.readouterr().out.splitlines()[2:]
    assert '{"size": 9}' in failed and "AssertionError: too large" in failed
    assert '{"size": 3}' in done and " done " in done

    home = outputs / "smoke"
    assert sorted(path.name for path in home.iterdir()) == ["records", "sweeps"]
    assert len(list((home / "records").glob("*.json"))) == 2
    assert [path.read_text() for path in home.glob("sweeps/*/tables/01_size.csv")] == ["3"]
    assert len(list(home.glob("sweeps/01_sizes-*/notebooks/01_sizes.html"))) == 1
    assert len(list(home.glob("sweeps/01_sizes-*/notebooks/01_sizes.failed.ipynb"))) == 1


@pytest.mark.parametrize(
    ("setting", "options", "field"),
    [
        ({"siz": 1}, {}, "'size'"),
        ({"profile": "quick"}, {}, "profile"),
        ({"size": 1}, {"jobs": 2}, "--jobs"),
        ({"size": 1}, {"scheduler": "tcp://127.0.0.1:1"}, "--scheduler"),
    ],
)
def test_a_notebook_sweep_that_cannot_be_is_refused_at_once(
    notebook, outputs, setting, options, field
):
    with pytest.raises(IpslibError, match=field):
        sweep = {"profile": "smoke", "notebook": "01_sizes", "runs": [setting]}
        run_sweep(sweep, **options)
    assert not outputs.exists()
