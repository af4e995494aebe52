import re
from urllib.parse import unquote

import pytest

from ipslib.commands.index import build_index, read_summary, write_summary
from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.runs.profiles import Layout


def row(**changes):
    counts = {"made": 2, "reused": 1, "failed": 0}
    return {"title": "A", "state": "done", "minutes": 0.5, "error": ""} | counts | changes


@pytest.fixture
def layout(project):
    return Layout.of("quick").create()


def section_of(page: str, text: str) -> str:
    return next(part for part in page.split("<section>") if text in part)


def test_files_stand_under_their_notebook_and_every_link_leads_to_a_file(layout):
    for name in (
        "notebooks/01_a.html",
        "notebooks/01_a.ipynb",
        "tables/01_grid.csv",
        "figures/01_bars and more.png",
        "figures/09_map.png",
        "tables/77_other.csv",
    ):
        write_atomically(layout.folder / name, "x")
    write_summary(layout, {"01_a": row(title="01 - Size & number?"), "09_b": row(title="09 - B")})

    page = build_index(layout).read_text()

    first = section_of(page, "01 - Size &amp; number?")
    assert "01_grid.csv" in first and "01_bars" in first and "09_map" not in first
    assert "2 runs made, 1 reused" in first and "0.5 min" in first
    assert "09_map" in section_of(page, "09 - B")
    assert "77_other.csv" in section_of(page, "Other results")
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert len(links) == 9
    assert all((layout.folder / unquote(link)).is_file() for link in links)


def test_a_failed_notebook_shows_its_error_and_the_partial_copy(layout):
    write_atomically(layout.notebooks / "01_a.failed.ipynb", "{}")
    write_summary(layout, {"01_a": row(state="failed", error="no <digits>")})
    page = build_index(layout).read_text()
    assert "no &lt;digits&gt;" in page and 'href="notebooks/01_a.failed.ipynb"' in page


def test_a_broken_summary_says_what_to_do(layout):
    assert read_summary(layout) == {}
    layout.summary.write_text("{")
    with pytest.raises(IpslibError, match="delete it and run the study again"):
        read_summary(layout)
