"""The profiles of the study: what each gives to a run and to a notebook, and where results lie."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from ipslib import runs
from ipslib.config import DEFAULT_KIND, RunConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.digits import find_source
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import from_here, project_root

PROFILES = ("smoke", "quick", "overnight", "paper")
AUTO = "auto"  # of `digits`

_NOTEBOOK = re.compile(r"\d\d_\w+\.py")
_OTHER_BASE = re.compile(r"[+-]?(0[0-9_]+|.*:.*)")  # 010 is eight, 1:30 is ninety
_TEXT_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # 1e-3 is text to YAML 1.1


def check_profile(profile: str) -> str:
    if profile not in PROFILES:
        raise IpslibError(f"there is no profile {profile!r}{did_you_mean(profile, PROFILES)}")
    return profile


@attrs.frozen
class Layout:
    """One profile's results: records, executed notebooks, tables and figures.

    What a sweep makes of one setting of a notebook lies apart, under that setting's name; records
    are shared.
    """

    home: Path
    apart: str = ""

    @classmethod
    def of(cls, profile: str) -> "Layout":
        """In `$IPSLIB_OUTPUTS`, or in outputs/ of the project."""
        outputs = os.environ.get("IPSLIB_OUTPUTS") or project_root() / "outputs"
        return cls(from_here(outputs).resolve() / profile, runs.KERNEL.apart)

    @property
    def folder(self) -> Path:
        return self.home / "sweeps" / self.apart if self.apart else self.home

    records = property(lambda self: self.home / "records")
    notebooks = property(lambda self: self.folder / "notebooks")
    tables = property(lambda self: self.folder / "tables")
    figures = property(lambda self: self.folder / "figures")
    summary = property(lambda self: self.folder / "summary.json")
    index = property(lambda self: self.folder / "index.html")

    def create(self) -> "Layout":
        """Make the four folders, and return the layout itself."""
        for folder in (self.records, self.notebooks, self.tables, self.figures):
            folder.mkdir(parents=True, exist_ok=True)
        return self


def committed_overnight() -> Layout:
    """The results of `overnight` that come with the project, wherever those of today go."""
    return Layout(project_root() / "outputs" / "overnight")


def list_notebooks(profile: str | None = None) -> list[Path]:
    """The study's notebooks, notebooks/NN_name.py, in their order; those of a profile are the ones
    that it has parameters for."""
    sources = (project_root() / "notebooks").glob("*.py")
    notebooks = sorted(path for path in sources if _NOTEBOOK.fullmatch(path.name))
    if not notebooks:
        raise IpslibError(f"{project_root()} holds no notebooks/NN_name.py: go to the checkout")
    if profile is None:
        return notebooks
    return [path for path in notebooks if _settings_file(profile, path.stem).is_file()]


def resolve_notebook(name: str) -> Path:
    """Find a notebook by file name, by stem, or by number: "1" is 01_o2i_datasize."""
    notebooks, wanted = list_notebooks(), Path(name).stem
    matches = [path for path in notebooks if wanted.zfill(2) in (path.stem, path.stem[:2])]
    if len(matches) != 1:
        hint = did_you_mean(wanted, [path.stem for path in notebooks])
        raise IpslibError(f"there is no notebook {name!r}{hint}")
    return matches[0]


def load_parameters(profile: str, notebook: str | Path) -> dict[str, Any]:
    """Read the complete parameter set that a profile gives to one notebook."""
    return _load(profile, resolve_notebook(str(notebook)).stem)


def load_base(profile: str) -> dict[str, Any]:
    """Read the run settings that all notebooks of a profile share."""
    return _load(profile, "base")


def _settings_file(profile: str, stem: str) -> Path:
    return project_root() / "params" / check_profile(profile) / f"{stem}.yaml"


def _load(profile: str, stem: str) -> dict[str, Any]:
    path = _settings_file(profile, stem)
    name = path.relative_to(project_root()).as_posix()
    if not path.is_file():
        have = [each for each in PROFILES if _settings_file(each, stem).is_file()]
        raise IpslibError(
            f"the profile {profile!r} has no {stem}: wanted {name}, which is in "
            f"{', '.join(have) or 'no profile'}"
        )
    return read_settings(path, name)


def base_config(profile: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The run that all runs of a profile start from, some of its fields overridden.

    `digits: auto` is decided here: MNIST where it is or can be downloaded, else embedded. For
    another `dataset` the profile gives the network and its training, not the data.
    """
    settings, overrides = load_base(profile), dict(overrides or {})
    if overrides.get("dataset", DEFAULT_KIND) != DEFAULT_KIND:
        of_images = {field.name for field in attrs.fields(MegapixelMNISTConfig)}
        settings = {name: value for name, value in settings.items() if name not in of_images}
    settings |= overrides
    decide = settings.get("digits") == AUTO
    if decide:
        del settings["digits"]
    config = run_config(settings)  # refuses what is wrong before a network is asked
    return config.replace(digits=find_source()) if decide else config


def parse_value(text: str) -> Any:
    """Read a value from the command line: a number, true, null or a list, else the text itself."""
    if _TEXT_NUMBER.fullmatch(text):
        return float(text)
    try:
        return yaml.load(text, _Loader)
    except yaml.constructor.ConstructorError as error:
        raise IpslibError(f"{text}: {error.problem}.") from error
    except yaml.YAMLError:
        return text


def read_settings(path: Path, name: str) -> dict[str, Any]:
    """Read a YAML file of `name: value` lines; an empty one has none.

    Raises:
        IpslibError: when it is no YAML, holds something else, or a value twice or misleadingly.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise IpslibError(f"{name} is not valid YAML: {reason}") from error
    if not isinstance(values, dict | None):
        raise IpslibError(f"{name} must hold 'name: value' lines, got a {type(values).__name__}")
    return values or {}


class _Loader(yaml.SafeLoader):
    """YAML, but for what it drops or changes without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    _refuse(key, f"wanted {key.value!r} once, got it twice; delete one of them")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if _OTHER_BASE.fullmatch(node.value):
            _refuse(node, f"{node.value!r}, which YAML reads as {number}: write that, or quote it")
        return number

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        if _TEXT_NUMBER.fullmatch(node.value):  # papermill would hand it to a notebook as text
            _refuse(node, f"{node.value!r}, which YAML reads as text: write it as in 1.0e-3")
        return super().construct_yaml_str(node)


def _refuse(node: yaml.Node, problem: str) -> None:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)
