"""The shape of the package: its core stands alone, and what the README shows works."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = "config errors fields naming selection masking losses localisation training data model"
FOREIGN = "ipslib.study matplotlib pandas papermill jupytext seaborn statsmodels"


def modules_after(statements: str) -> set[str]:
    program = f"{statements}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_the_core_knows_nothing_of_the_study():
    sources = [ROOT / "ipslib" / f"{name}.py" for name in CORE.split()]
    names = [f"ipslib.{path.stem}" for path in sources if path.is_file()]
    for folder in ("data", "model"):
        names += [f"ipslib.{folder}.{p.stem}" for p in (ROOT / "ipslib" / folder).glob("[a-z]*.py")]
    loaded = modules_after("\n".join(f"import {name}" for name in names))
    assert set(names) <= loaded
    assert not loaded & set(FOREIGN.split())


def test_training_runs_without_papermill_and_jupytext():
    loaded = modules_after("import ipslib.runs.schedule, ipslib.__main__")
    assert not loaded & {"papermill", "jupytext", "nbconvert", "matplotlib", "seaborn"}


def test_the_example_of_the_readme_runs():
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shown = re.findall(r"^(output\S+)\s+# (\([\d, ]+\))", example, re.MULTILINE)
    assert len(shown) == 3
    names: dict = {}
    exec(example.replace("1500, 1500", "500, 500"), names)  # a smaller canvas, the same call
    for expression, shape in shown:
        assert str(tuple(eval(expression, names).shape)) == shape


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    local = [link for link in links if not link.startswith("http")]
    assert local and all((ROOT / link).exists() for link in local)


def test_nothing_committed_names_a_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    home = re.compile(rb"(?<![\w./])/(home|root|Users|work|tmp)/\w")
    texts = [p for p in paths if p.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".sh"}]
    assert texts
    for path in texts:
        if path.is_file() and path != Path(__file__):
            assert not home.search(path.read_bytes()), path.name
