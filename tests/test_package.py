"""The shape of the package: its core stands alone, and what the README shows works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ipslib
import ipslib.study

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md"), *ROOT.glob("ipslib/**/README.md")]
STUDY = "jupytext nbconvert papermill seaborn statsmodels tabulate"
NETWORK = f"{STUDY} h5py matplotlib pandas scipy skimage sklearn"  # what it does without


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


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import ipslib", "torch numpy ipslib.config"),
        ("import ipslib.__main__ as m; m._parser()", "torch skimage h5py openslide papermill"),
    ],
    ids=["the face", "the command line"],
)
def test_what_is_not_asked_for_costs_nothing(statement, heavy):
    done = without("", f"{statement}\nprint(*sys.modules)")
    assert not {*done.stdout.split()} & {*heavy.split()}, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("face", [ipslib, ipslib.study])
def test_every_name_of_a_face_is_there_and_no_module_hides_it(face):
    """A module that has been imported stands in its package under its own name."""
    for name in face.__all__:
        assert getattr(face, name) is not None
        assert not Path(face.__file__).with_name(f"{name}.py").exists()


def test_the_face_lists_its_names_and_refuses_others():
    assert set(ipslib.__all__) <= set(dir(ipslib))
    with pytest.raises(AttributeError, match="IPSnet"):
        _ = ipslib.IPSnet


def test_the_network_needs_torch_alone():
    done = without(NETWORK, example())
    assert done.returncode == 0, done.stderr


def test_own_images_need_nothing_of_the_study():
    done = without(STUDY, "from ipslib import TrainedImages, load_original, train, train_images")
    assert done.returncode == 0, done.stderr


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
