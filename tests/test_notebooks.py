"""Every notebook: well-formed, its defaults those of `quick`, and executed in `smoke`."""

import ast
import importlib
import inspect
import json
import pkgutil
import re

import pytest
from matplotlib.figure import Figure

import ipslib.study
from ipslib.commands.notebooks import read_source
from ipslib.commands.study import run_study
from ipslib.datasets.registry import run_config
from ipslib.paths import project_root
from ipslib.runs.profiles import PROFILES, list_notebooks, load_base, load_parameters
from ipslib.study import networks
from ipslib.study.published_configs import published_runs
from ipslib.study.session import Study
from tests.study.made_up import make_record

NOTEBOOKS = list_notebooks()
FOUND = {"roi_recall": 0.5, "roi_recall_random": 0.1, "entropy": 0.9}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def parameters_cell(path) -> str:
    cells = read_source(path).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0].source


@each_notebook
def test_defaults_are_the_literals_of_quick_or_where_it_lacks_the_notebook_of_overnight(path):
    defaults: dict = {}
    exec(parameters_cell(path), {"__builtins__": {}}, defaults)  # literals only: no names needed
    profile = "quick" if path in list_notebooks("quick") else "overnight"
    assert defaults == load_parameters(profile, path)


@pytest.mark.parametrize(
    ("profile", "path"),
    [(profile, path) for profile in PROFILES for path in list_notebooks(profile)],
    ids=lambda value: getattr(value, "stem", value),
)
def test_each_profile_sets_every_parameter_and_names_itself(profile, path):
    values = load_parameters(profile, path)
    assert values.keys() == load_parameters("smoke", path).keys()
    assert values["profile"] == profile
    run_config(load_base(profile) | {"digits": "embedded"} | values["overrides"])


def is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


@each_notebook
def test_a_notebook_reads_as_a_text(path):
    source = read_source(path)
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    assert text.startswith(f"# {path.stem[:2]} - ")
    for heading in ("## Reading", "## Limits"):
        assert heading in text
    for cell in (cell for cell in source.cells if cell.cell_type == "code"):
        if "parameters" in cell.metadata.get("tags", []):
            continue  # a table, as long as the notebook has settings
        parts = [each for each in ast.parse(cell.source).body if not is_import(each)]
        assert sum(each.end_lineno - each.lineno + 1 for each in parts) <= 30


def test_every_params_file_belongs_to_a_notebook():
    stems = {path.stem for path in NOTEBOOKS} | {"base"}
    for profile in PROFILES:
        found = {path.stem for path in (project_root() / "params" / profile).glob("*.yaml")}
        # What quick leaves out is for the night, which has all.
        assert found == stems or (profile == "quick" and {"base"} < found < stems)


@pytest.fixture
def asked(monkeypatch, tmp_path, mnist_root):
    """Collects the runs that notebooks ask for; none is trained and no figure is drawn."""
    configs = []

    def run(_, wanted):
        wanted = list(wanted)
        configs.extend(wanted)
        return [make_record(config, 0.1, attention=FOUND) for config in wanted]

    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(Study, "run", run)
    monkeypatch.setattr(Study, "save_figure", lambda *_: None)
    monkeypatch.setattr(networks, "obtain_weights", lambda _: True)  # no weights are downloaded
    for found in pkgutil.iter_modules(ipslib.study.__path__):
        module = importlib.import_module(f"ipslib.study.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if inspect.signature(function).return_annotation is Figure:
                monkeypatch.setattr(module, name, lambda *_, **__: None)
    return configs


def ask(path, asked) -> None:
    """Execute a notebook in `paper` up to the last cell that asks for runs."""
    cells = [cell for cell in read_source(path).cells if cell.cell_type == "code"]
    asks = re.compile(r"\b(run_arms|run_comparisons|study\.run)\(")
    last = max((i for i, cell in enumerate(cells) if asks.search(cell.source)), default=-1)
    parameters = load_parameters("paper", path)
    if "n_measured" in parameters:
        parameters["n_measured"] = 10  # of the images whose strokes are measured: slow
    names, n_before = {"display": lambda *_: None}, len(asked)
    for cell in cells[: last + 1]:
        try:
            exec(cell.source, names)
        except Exception:
            if len(asked) == n_before:
                raise
            # Made-up runs have no weights and no histories: what shows those is passed over.
        if "parameters" in cell.metadata.get("tags", []):
            names.update(parameters)


def test_the_notebooks_ask_for_every_published_run(asked):
    """In `paper`, all together, with the very configurations of the queue."""
    for path in NOTEBOOKS:
        if path.stem[:2] <= "10":  # the published categories
            ask(path, asked)
    ids = {config.id for config in asked}
    assert [run.name for run in published_runs() if run.config.id not in ids] == []


def test_every_notebook_executes_in_smoke(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("IPSLIB_DATA", str(tmp_path / "data"))
    for proxy in ("http_proxy", "https_proxy"):  # nothing answers: the embedded digits are used
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    assert run_study("smoke") == 0
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
    assert run_study("smoke") == 0
    assert "up to date" in capsys.readouterr().err
