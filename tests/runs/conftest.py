"""What tests of runs share: a folder of records, and the events that a runner would follow."""

import json

import pytest

from ipslib import runs
from ipslib.runs.records import RecordStore


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "records")


@pytest.fixture
def events(tmp_path, monkeypatch):
    """Reads them, when called; runs are made one by one meanwhile."""
    path = tmp_path / "events"
    monkeypatch.setattr(runs, "KERNEL", runs.Kernel(events=str(path), jobs=1))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]
