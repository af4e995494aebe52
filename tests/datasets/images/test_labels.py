import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.images.labels import read_labels, read_table
from ipslib.errors import IpslibError

PLAIN = pd.DataFrame(
    {
        "image": [f"{i}.png" for i in range(12)],
        "split": ["train", "train", "test"] * 4,
        "kind": ["Rotbuche", "Früh"] * 6,
    }
)

UNKNOWN = ["", "nan", "NaN", "NA", "N/A", "#N/A", "None", "NULL", "<NA>", "inf", "-inf", "?",
           "#REF!", "1.23457E+12", "\u200b"]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.csv"


def read(path, table, **columns):
    table.to_csv(path, index=False)
    return read_labels(path, **columns)


class TestTable:
    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32"]
    )
    def test_separators_and_encodings_are_found_and_said(self, path, separator, encoding):
        PLAIN.to_csv(path, index=False, sep=separator, encoding=encoding)
        table = read_table(path)
        assert table.columns == PLAIN.to_dict("list") and table.lines == list(range(2, 14))
        said = " ".join(table.notes)
        assert (separator == ",") == ("separated" not in said)
        assert encoding.startswith("utf-8") == ("read as utf" not in said and "cp1252" not in said)

    @pytest.mark.parametrize(
        "text",
        [
            "image,kind\r\n0.png,a\r\n\r\n1.png,b\r\n",  # line ends of Windows, an empty line
            "image,kind\r0.png,a\r1.png,b\r",  # of an old Mac
            '"image", "kind"\n 0.png ,  a\n1.png,"b"\n',
            "sep=;\nimage;kind\n0.png;a\n1.png;b\n;\n",  # Excel's, with an emptied line
            "image,kind,,\n0.png,a,,\n1.png,b,,\n",  # and emptied columns
            ',image,kind\n"1",0.png,a\n"2",1.png,b\n',  # R's and pandas' index
            "Unnamed: 0,Unnamed: 0.1,image,kind\n0,0,0.png,a\n1,1,1.png,b\n",  # exported twice
            "image,kind\n1,0.png,a\n2,1.png,b\n",  # R's write.table
        ],
    )
    def test_what_programs_add_is_left_out(self, path, text):
        path.write_bytes(text.encode())
        assert read_table(path).columns == {"image": ["0.png", "1.png"], "kind": ["a", "b"]}

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (b"", "labels.csv"),
            (b"PK\x03\x04\x14\0", "workbook"),
            (b"\x00\x01\x02\x03", "labels.csv"),
            (b"image,kind\n0.png,a\n1.png\n", "line 3"),
            (b"image,kind\n0.png,a,b\n1.png,a\n", "line 2"),
            (b'image,kind\n"0.png,a\n', "line 2"),
            (b"image,kind,kind\n0.png,a,b\n", "'kind'"),
        ],
    )
    def test_what_is_no_table_is_refused(self, path, content, named):
        path.write_bytes(content)
        with pytest.raises(IpslibError, match=named):
            read_table(path)


class TestValues:
    @pytest.mark.parametrize("unknown", UNKNOWN)
    @pytest.mark.parametrize("column", ["image", "split", "patient", "kind"])
    def test_what_is_not_known_is_no_class_no_part_and_no_patient(self, path, unknown, column):
        table = PLAIN.assign(patient=[f"P{i // 2}" for i in range(12)], split="train")
        table.loc[[4, 7], column] = unknown
        with pytest.raises(IpslibError, match=f"'{column}'.* line 6"):
            read(path, table)

    @pytest.mark.parametrize(
        ("cells", "classes"),
        [
            (["Paris, France", "Rome, Italy"], ["Paris, France", "Rome, Italy"]),
            *[([word, "mild"], [word, "mild"]) for word in ("none", "unknown", "-", "Nan Hua")],
            *[(cells, ["1", "2"]) for cells in (["1.0", "2.0"], ["1", "2.0"], ["1.", "2.00"])],
            (["007", "012"], ["007", "012"]),  # are no numbers
            (["12345678901234567", "12345678901234568"],) * 2,
            (["Fr\u00fch", "Fru\u0308h", "sp\u00e4t"], ["Fr\u00fch", "Fr\u00fch", "sp\u00e4t"]),
        ],
    )
    def test_what_only_looks_unknown_or_different_is_a_class(self, path, cells, classes):
        found = read(path, PLAIN.assign(kind=np.resize(cells, 12))).columns["kind"]
        assert found == np.resize(classes, 12).tolist()

    @pytest.mark.parametrize(
        "values", [["oak", "Oak"], ["oak tree", "oak  tree"], ["1", "01"], ["1.0", "1.00", "x"],
                   ["True", "TRUE"], ["0.50", ".5"], ["\u212bngstr\u00f6m", "a\u030angstr\u00f6m"],
                   ["oak", "oak\u200b"], ["oak", "o\u00adak"], ["0.3", "0.30000000000000004"]]
    )  # fmt: skip
    def test_two_spellings_of_a_class_are_refused(self, path, values):
        table = PLAIN.assign(kind=np.resize([*values, "ash"], 12))
        with pytest.raises(IpslibError, match="'kind'.* line 2 .* line 3"):
            read(path, table)


class TestColumns:
    @pytest.mark.parametrize(
        "name",
        ["type", "train", "keys", "tumor.grade", "class", "lambda", "label", "Art der Probe", "0"],
    )
    def test_any_name_is_a_task(self, path, name):
        assert read(path, PLAIN.rename(columns={"kind": name})).tasks == (name,)

    @pytest.mark.parametrize(
        ("name", "values", "n_lines"),
        [
            ("name", [f"P{i}" for i in range(12)], 12),
            ("comment", [f"seen on day {i}" for i in range(6)], 12),
            ("id", [1000 + 7 * i for i in range(12)], 12),
            ("age", [20 + 3 * i for i in range(14)], 56),
            ("share", [0.37, 0.5, 1.25], 12),
            ("fold", [0, 1, 2], 12),
            ("cv_fold", ["a", "b"], 12),
            ("subset", ["train", "val"], 12),
            ("scanner", ["A"], 12),
            ("tags", ["clear", "clear;road"], 12),
            ("tags", ["a,b", "b,c", "c,a", "a,b,c"], 12),
        ],
    )
    def test_what_does_not_look_like_labels_is_none_unless_named(self, path, name, values, n_lines):
        table = pd.DataFrame({"image": [f"{i}.png" for i in range(n_lines)]})
        table["kind"], table[name] = np.resize(["a", "b"], n_lines), np.resize(values, n_lines)
        with pytest.raises(IpslibError, match=f"'{name}'"):
            read(path, table)
        assert read(path, table, tasks="kind").tasks == ("kind",)
        assert read(path, table, tasks=["kind", name]).tasks == ("kind", name)

    def test_classes_by_number_and_many_classes_are_labels(self, path):
        table = pd.DataFrame({"image": [f"{i}.png" for i in range(60)]})
        table["kind"] = [str(i % 20) for i in range(60)]
        table["grade"] = [f"grade {i % 20}" for i in range(60)]
        assert read(path, table).tasks == ("kind", "grade")

    def test_a_column_that_counts_lines_is_left_out_and_said(self, path):
        for first in (0, 1):
            read_ = read(path, PLAIN.assign(index=range(first, first + 12)))
            assert read_.tasks == ("kind",) and any("'index'" in note for note in read_.notes)
            assert "index" not in read_.columns and read_ == read_labels(path, tasks="kind")

    def test_capitals_of_the_two_columns_do_not_matter(self, path):
        table = PLAIN.rename(columns={"image": "Image", "split": "SPLIT"})
        table["SPLIT"] = table["SPLIT"].str.title()
        assert read(path, table).columns["split"] == list(PLAIN.split)
        with pytest.raises(IpslibError, match="image"):
            read(path, table.assign(image="x"))

    @pytest.mark.parametrize(
        ("columns", "named"),
        [
            ({"tasks": ["kin"]}, "'kind'"),
            ({"group": "patent"}, "'patent'"),
            ({"group": 0}, "column 0"),
            ({"tasks": "image"}, "'image'"),
            ({"tasks": []}, "labels.csv"),
        ],
    )
    def test_a_column_that_is_not_there_is_told(self, path, columns, named):
        with pytest.raises(IpslibError, match=named):
            read(path, PLAIN, **columns)

    @pytest.mark.parametrize("parts", [["train"], ["train", "val"], ["train", "test", "dev"]])
    def test_other_parts_than_train_and_test_are_refused(self, path, parts):
        with pytest.raises(IpslibError, match="'split'"):
            read(path, PLAIN.assign(split=np.resize(parts, 12)))


class TestGroups:
    PATIENTS = tuple(f"P{i // 2}" for i in range(12))

    @pytest.mark.parametrize(
        "name", ["patient", "Patient ID", "patient_id", "subject", "group", "donor-nr", "slide_id"]
    )
    def test_a_column_that_is_called_so_is_no_task_and_said(self, path, name):
        read_ = read(path, PLAIN.drop(columns="split").assign(**{name: self.PATIENTS}))
        assert (read_.tasks, read_.group) == (("kind",), name)
        assert any(name in note for note in read_.notes)
        assert read_.columns[name] == list(self.PATIENTS)
        named = read(path, PLAIN.assign(**{name: self.PATIENTS}), group=name, tasks="kind")
        assert set(read_.notes) <= set(named.notes)  # as a run reads it again

    def test_one_may_be_named_or_none(self, path):
        table = PLAIN.drop(columns="split").assign(patient=self.PATIENTS, tree=self.PATIENTS)
        read_ = read(path, table, group="tree")
        assert (read_.tasks, read_.group) == (("kind",), "tree")
        none = read(path, table, group="", tasks="kind")
        assert none.group == "" and list(none.columns) == ["image", "kind"]
        assert read(path, PLAIN.assign(group=["a", "b"] * 6), tasks="group").tasks == ("group",)

    def test_of_several_the_coarsest_counts(self, path):
        table = PLAIN.assign(slide_id=[f"S{i}" for i in range(12)], patient=self.PATIENTS)
        table = table.drop(columns="split")
        assert read(path, table).group == "patient"
        with pytest.raises(IpslibError, match="slide_id, patient"):
            read(path, table.assign(slide_id=[f"S{i % 5}" for i in range(12)]))

    def test_a_split_that_tears_them_is_not_used_and_said(self, path):
        whole = PLAIN.assign(split=["train"] * 8 + ["test"] * 4, patient=self.PATIENTS)
        assert "split" in read(path, whole).columns
        torn = read(path, PLAIN.assign(patient=self.PATIENTS))
        assert "split" not in torn.columns and any("'split'" in note for note in torn.notes)
        kept = read(path, PLAIN.assign(patient=self.PATIENTS), group="")
        assert kept.columns["split"] == list(PLAIN.split)
