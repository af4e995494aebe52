"""The shape of the package: its core stands alone, and what the README shows works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ipslib

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md"), *ROOT.glob("ipslib/**/README.md")]
STUDY = "jupytext nbconvert papermill seaborn statsmodels tabulate"
NETWORK = f"{STUDY} h5py matplotlib pandas scipy skimage sklearn"  # what it does without


def modules_after(statements: str) -> set[str]:
    program = f"{statements}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def without(packages: str, program: str) -> subprocess.CompletedProcess:
    """Run a program where some packages cannot be imported."""
    missing = f"import sys\nsys.modules |= dict.fromkeys({packages.split()!r})\n"
    return subprocess.run(
        [sys.executable, "-c", missing + program], capture_output=True, text=True, cwd=ROOT
    )


def example() -> str:
    """The README's library example, on a smaller canvas."""
    [found] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return found.replace("1500, 1500", "500, 500")


def test_the_face_costs_nothing_until_a_name_is_asked_for():
    loaded = modules_after("import ipslib")
    assert not loaded & {"torch", "numpy", "ipslib.config"}


def test_every_name_of_the_face_is_there():
    for name in ipslib.__all__:
        assert getattr(ipslib, name) is not None
    assert set(ipslib.__all__) <= set(dir(ipslib))
    with pytest.raises(AttributeError, match="IPSnet"):
        _ = ipslib.IPSnet


def test_the_network_needs_torch_alone():
    done = without(NETWORK, example())
    assert done.returncode == 0, done.stderr


def test_own_images_need_nothing_of_the_study():
    done = without(STUDY, "from ipslib import TrainedImages, load_original, train, train_images")
    assert done.returncode == 0, done.stderr


def test_training_runs_without_papermill_and_jupytext():
    loaded = modules_after("import ipslib.runs.schedule, ipslib.__main__")
    assert not loaded & {"papermill", "jupytext", "nbconvert", "matplotlib", "seaborn"}


def test_the_example_of_the_readme_gives_the_shapes_it_shows():
    shown = re.findall(r"^(output\S+)\s+# (\([\d, ]+\))", example(), re.MULTILINE)
    assert len(shown) == 3
    names: dict = {}
    exec(example(), names)
    for expression, shape in shown:
        assert str(tuple(eval(expression, names).shape)) == shape


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT) for p in PAGES), ids=str)
def test_every_link_of_a_readme_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    missing = [link for link in local if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_the_readme_is_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


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
