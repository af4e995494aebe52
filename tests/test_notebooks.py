"""Every notebook: well-formed, its defaults those of `quick`, and executed in `smoke`."""

import json

import pytest

from ipslib.config import RunConfig
from ipslib.paths import project_root
from ipslib.study.command import run_study
from ipslib.study.notebooks import read_source
from ipslib.study.profiles import PROFILES, list_notebooks, load_base, load_parameters

NOTEBOOKS = list_notebooks()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def parameters_cell(path) -> str:
    cells = read_source(path).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0].source


@each_notebook
def test_defaults_are_the_literals_of_the_quick_profile(path):
    defaults: dict = {}
    exec(parameters_cell(path), {"__builtins__": {}}, defaults)  # literals only: no names needed
    assert defaults == load_parameters("quick", path)


@each_notebook
@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_sets_every_parameter_and_names_itself(path, profile):
    values = load_parameters(profile, path)
    assert values.keys() == load_parameters("quick", path).keys()
    assert values["profile"] == profile
    RunConfig.from_flat(load_base(profile) | {"digits": "embedded"} | values["overrides"])


@each_notebook
def test_a_notebook_reads_as_a_text(path):
    source = read_source(path)
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    assert text.startswith(f"# {path.stem[:2]} - ")
    for heading in ("## Reading", "## Limits"):
        assert heading in text
    assert all(cell.source.count("\n") < 30 for cell in source.cells if cell.cell_type == "code")


def test_every_params_file_belongs_to_a_notebook():
    stems = {path.stem for path in NOTEBOOKS} | {"base"}
    for profile in PROFILES:
        assert {p.stem for p in (project_root() / "params" / profile).glob("*.yaml")} == stems


def test_every_notebook_executes_in_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("IPSLIB_DATA", "")
    assert run_study("smoke", parameters={"overrides": {"digits": "embedded"}}) == 0
    summary = json.loads((tmp_path / "smoke" / "summary.json").read_text())
    assert len(summary) == len(NOTEBOOKS)
    for path in NOTEBOOKS:
        executed = (tmp_path / "smoke" / "notebooks" / f"{path.stem}.ipynb").read_text()
        assert (tmp_path / "smoke" / "notebooks" / f"{path.stem}.html").is_file()
        assert str(project_root()) not in executed  # nothing of this machine is kept
        streams = [
            output
            for cell in json.loads(executed)["cells"]
            for output in cell.get("outputs", [])
            if output["output_type"] == "stream"
        ]
        assert not streams, streams  # no warnings in what a reader opens
    tables = list((tmp_path / "smoke" / "tables").glob("*.csv"))
    figures = list((tmp_path / "smoke" / "figures").glob("*.png"))
    assert tables and figures
    assert run_study("smoke", parameters={"overrides": {"digits": "embedded"}}) == 0
    assert "up to date" in capsys.readouterr().err
