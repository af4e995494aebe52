"""What tests of commands share: a folder of results of their own, and no waiting for a network."""

from pathlib import Path

import pytest

from ipslib.runs import profiles


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(profiles, "find_source", lambda: "embedded")
    return tmp_path / "outputs"
