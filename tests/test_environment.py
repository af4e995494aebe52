"""environment.yml pins what pyproject.toml allows, and run_all.sh reads the pins as they stand."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ranges() -> dict[str, Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + extras["study"] + extras["slides"] + extras["test"]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    del found["ipslib"]  # an extra that holds another
    return found


def pip_section() -> list[str]:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return next(entry["pip"] for entry in dependencies if isinstance(entry, dict))


def pins() -> dict[str, Version]:
    pairs = (line.split("==") for line in pip_section() if "==" in line)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_both_files_name_the_same_packages_and_pins_lie_in_the_ranges():
    assert pins().keys() == ranges().keys()
    for name, version in pins().items():
        assert ranges()[name].specifier.contains(version), name


def test_everything_but_the_project_itself_is_pinned_exactly():
    assert [line for line in pip_section() if "==" not in line] == ["-e ."]


def test_the_python_of_the_environment_is_allowed():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    version = next(line.split("=")[1] for line in dependencies if str(line).startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_the_shell_script_reads_the_same_pins():
    program = re.search(r"awk '(.*?)' environment\.yml", (ROOT / "run_all.sh").read_text())
    read = subprocess.run(
        ["awk", program[1], ROOT / "environment.yml"], capture_output=True, text=True, check=True
    )
    assert read.stdout.split() == [line for line in pip_section() if "==" in line]
