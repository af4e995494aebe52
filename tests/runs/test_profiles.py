import pytest

from ipslib.errors import IpslibError
from ipslib.paths import project_root
from ipslib.runs.profiles import (
    Layout,
    base_config,
    check_profile,
    list_notebooks,
    load_base,
    load_parameters,
    parse_value,
    resolve_notebook,
)


@pytest.fixture
def two(project):
    project.add("09_attention_maps", "1")
    project.add("01_o2i_datasize", "1")
    (project.root / "notebooks" / "helper.py").write_text("")
    return project.root


@pytest.mark.parametrize(
    "name", ["01_o2i_datasize", "01_o2i_datasize.py", "notebooks/01_o2i_datasize.ipynb", "01", "1"]
)
def test_a_notebook_goes_by_name_stem_or_number(two, name):
    assert resolve_notebook(name).name == "01_o2i_datasize.py"


@pytest.mark.parametrize(
    ("find", "name", "said"),
    [
        (resolve_notebook, "01_o2i_datsize", "'01_o2i_datasize'"),
        (resolve_notebook, "7", "01_o2i_datasize, 09_attention_maps"),  # in the study's order
        (check_profile, "quik", "'quick'"),
        (lambda profile: load_parameters(profile, "01"), "paper", "params/paper/01_o2i_datasize"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(two, find, name, said):
    with pytest.raises(IpslibError, match=said):
        find(name)


def test_a_folder_without_notebooks_is_said_to_be_one(project):
    with pytest.raises(IpslibError, match="no notebooks"):
        list_notebooks()


def test_parameters_and_base_are_read_from_the_profile(two, project):
    project.set("quick", "base", "memory_size: 10\n")
    assert load_parameters("quick", "01") == {"size": 3, "rate": 0.5}
    assert load_base("quick") == {"memory_size": 10}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate: 1e-3", "'1e-3'"),
        ("rates: [1.0e-3, 1e4]", "'1e4'"),
        ("- 1\n- 2", "list"),
        ("a: [1", "YAML"),
        ("seeds: [0]\nseeds: [1]", "'seeds'"),  # else the first is dropped without a word
        ("grid: {seed: 1, rate: 2, 'seed': 1}", "'seed'"),
        ("seed: 010", "'010'"),
        ("minutes: [1:30]", "'1:30'"),
    ],
)
def test_files_that_would_mislead_a_notebook_are_refused(two, project, text, complaint):
    project.set("quick", "01_o2i_datasize", text)
    with pytest.raises(IpslibError, match=complaint) as error:
        load_parameters("quick", "01")
    said = str(error.value)
    assert "params/quick/01_o2i_datasize.yaml" in said and "\n" not in said


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 0.001), ("0.5", 0.5), ("true", True), ("[1, 2]", [1, 2]), ("null", None),
     ("majority", "majority"), ("[", "[")],
)  # fmt: skip
def test_values_of_the_command_line_have_their_types(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["{epochs: 5, epochs: 6}", "010", "[1e-3]"])
def test_values_that_would_mislead_are_refused(text):
    with pytest.raises(IpslibError):
        parse_value(text)


def test_files_may_share_values_by_merging(two, project):
    project.set("quick", "01_o2i_datasize", "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: *a}\n")
    values = load_parameters("quick", "01")
    assert values["b"] == {"x": 1, "y": 3} and values["c"] == {"x": 1, "y": 2}


def test_another_kind_of_data_takes_the_profiles_network_and_training_only(project):
    project.set("quick", "base", "digits: embedded\ncanvas: 84\npatch_size: 28\nepochs: 7\n")
    config = base_config("quick", {"dataset": "traffic_signs", "seed": 2})
    assert config.data.kind == "traffic_signs"
    assert (config.training.epochs, config.training.seed) == (7, 2)
    assert config.data.canvas == (1200, 1600)


def test_outputs_lie_in_the_project_unless_they_are_moved(project, tmp_path, monkeypatch):
    monkeypatch.delenv("IPSLIB_OUTPUTS", raising=False)
    assert Layout.of("quick").home == project.root / "outputs" / "quick"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPSLIB_OUTPUTS", "elsewhere")
    assert Layout.of("quick").home == tmp_path / "elsewhere" / "quick"


def test_root_is_the_checkout_above_else_the_current_directory(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project.root / "notebooks")
    assert project_root() == project.root
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path
