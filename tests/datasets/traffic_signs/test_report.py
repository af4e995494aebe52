from ipslib.datasets.traffic_signs.report import REPAIRED, SKIPPED, Problem, ReadReport

PROBLEMS = (
    Problem(REPAIRED, "trailing letters", "Set1/annotations.txt", 3, "a.jpg", "Read 1l as 1."),
    Problem(SKIPPED, "missing image", "Set1/annotations.txt", 5, "b.jpg", "b.jpg is not there."),
    Problem(REPAIRED, "trailing letters", "Set1/annotations.txt", 7, "c.jpg", "Read 2l as 2."),
    Problem(REPAIRED, "CRLF", "Set1/annotations.txt", None, None, "Lines end in CRLF."),
)


def report(problems=PROBLEMS, left_out=None) -> ReadReport:
    return ReadReport("Set1", 9, 4, {"EMPTY": 3, "50_SIGN": 2}, left_out or {}, problems)


def test_repairs_and_what_was_skipped_are_told_apart():
    assert [p.line for p in report().repaired] == [3, 7, None]
    assert [p.image for p in report().skipped] == ["b.jpg"]


def test_the_summary_counts_everything_and_names_what_was_skipped():
    summary = report(left_out={"other signs only": 2}).summary()
    first, *skipped = summary.splitlines()
    assert first == (
        "Set1: 5 images kept of 9 lines (EMPTY 3, 50_SIGN 2); left out as published: other signs "
        "only 2; MISC_SIGNS passed over: 4; repaired: trailing letters 2, CRLF 1; skipped: missing "
        "image 1."
    )
    assert skipped == ["b.jpg is not there."]


def test_a_sound_set_has_nothing_to_tell():
    assert report(()).summary() == (
        "Set1: 5 images kept of 9 lines (EMPTY 3, 50_SIGN 2); MISC_SIGNS passed over: 4; repaired: "
        "none; skipped: none."
    )


def test_the_table_has_a_row_a_problem():
    table = report().table()
    assert table["line"].dropna().tolist() == [3, 5, 7]
    assert table["message"].tolist() == [p.message for p in PROBLEMS]
    assert report(()).table().empty
    assert list(report(()).table().columns) == list(table.columns)
