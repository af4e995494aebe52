"""A project in miniature: notebooks and their parameters, written into a temporary folder."""

from pathlib import Path

import pytest

from ipslib import paths

HEAD = """\
# %% [markdown]
# # {title}

# %% tags=["parameters"]
size = 1
rate = 0.1

"""


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "notebooks").mkdir()
        (root / "params").mkdir()

    def add(self, stem: str, code: str, title: str = "A question?", profile: str = "quick") -> Path:
        path = self.root / "notebooks" / f"{stem}.py"
        path.write_text(HEAD.format(title=title) + "# %%\n" + code + "\n")
        self.set(profile, stem, "size: 3\nrate: 0.5\n")
        return path

    def set(self, profile: str, stem: str, text: str) -> None:
        path = self.root / "params" / profile / f"{stem}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path / "results"))
    monkeypatch.delenv("IPSLIB_DATA", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    # The project is where the current directory is, not the checkout that holds these tests.
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site" / "ipslib" / "paths.py"))
    monkeypatch.chdir(folder)
    return Project(folder)
