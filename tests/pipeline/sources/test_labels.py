from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.sources import labels
from pipeline.sources.labels import Row


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def whole(name: str, data: bytes | str) -> labels.Labels:
    return labels.read(name, data.encode() if isinstance(data, str) else data, "/photos/")


def read(name: str, data: bytes | str) -> dict[str, set[Row]]:
    return whole(name, data).rows


SAME = {"a.png": {Row("cat", "p1")}, "b/c.png": {Row("7", None)}}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.csv", "path,label,group\na.png,cat,p1\nb/c.png,7,\n"),
        ("labels.csv", "Group, Path ,LABEL,x\r\np1,a.png, cat ,9\r\n\r\n,b/c.png,7,\r\n"),
        ("labels.csv", "\ufeffpath,label,group\n./a.png,cat,p1\n/photos/b/c.png,7,"),
        ("labels.jsonl", '{"path": "a.png", "label": "cat", "group": "p1"}\n\n{"label": 7, "path": "b/c.png"}'),
        ("labels.parquet", parquet(path=["a.png", "b/c.png"], label=["cat", "7"], group=["p1", None], x=[1, 2])),
        (
            "labels.parquet",
            parquet(path=["a.png", "b/c.png"], label=pa.array(["cat", "7"]).dictionary_encode(), group=["p1", ""]),
        ),
    ],
    ids=["csv", "csv-crlf", "csv-bom", "jsonl", "parquet", "parquet-dictionary"],
)
def test_every_format_says_the_same(name: str, data: bytes | str) -> None:
    assert read(name, data) == SAME


def test_whole_numbers_are_labels() -> None:
    data = parquet(path=["a.png", "b.png"], label=[0, 1], group=pa.nulls(2))
    assert read("labels.parquet", data) == {"a.png": {Row("0", None)}, "b.png": {Row("1", None)}}


def test_decomposed_letters_are_composed() -> None:
    [(path, [row])] = read("labels.csv", "path,label,group\ncafe\u0301.png,\u00a0cafe\u0301 ,e\u0301\n").items()
    assert (path, row.label, row.group) == ("caf\u00e9.png", "caf\u00e9", "\u00e9")


def test_repeated_rows_are_one_and_contradictions_are_kept() -> None:
    found = read("labels.csv", "path,label\na.png,cat\n./a.png, cat\na.png,dog\na.png,cat\n")
    assert found == {"a.png": {Row("cat", None), Row("dog", None)}}


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5))
def test_whatever_csv_can_hold_is_read_or_refused(rows: list[tuple[str, str]]) -> None:
    text = "path,label\n" + "".join(
        ",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows
    )
    try:
        found = read("labels.csv", text)
    except DataError:
        assert any(not label.strip() or path == "./" or path == "/photos/" for path, label in rows)
    else:
        assert sum(map(len, found.values())) <= len(rows)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("labels.csv", "", "columns path, label"),
        ("labels.csv", "file,class\na.png,cat\n", "got 'file, class'"),
        ("labels.csv", "path;label\na.png;cat\n", "got 'path;label'"),
        ("labels.csv", "path,label,label\na.png,cat,cat\n", "at most one group"),
        ("labels.csv", "path,label\n", "names no image"),
        ("labels.csv", "path,label\na.png,cat\nb.png\n", "line 3: expected 2 cells as in the header, got 1"),
        ("labels.csv", "path,label\na, b.png,cat\n", "line 2: expected 2 cells as in the header, got 3"),
        ("labels.csv", "path,label\na.png, \n", "line 2: it has no label for a.png"),
        ("labels.csv", "path,label\n,cat\n", "line 2: it has no path"),
        ("labels.csv", 'path,label\n"a.png,cat\n', "line 2: unexpected end of data"),
        ("labels.csv", b"path,label\na.png,cat\nb.png,caf\xe9\n", "line 3: it is not UTF-8"),
        ("labels.csv", "path,label\na.png,cat\n".encode("utf-16"), "line 1: it is not UTF-8"),
        ("labels.csv", "path,label\na.png," + "x" * 200_000, "line 2: field larger"),
        ("labels.jsonl", '{"path": "a.png", "label": "cat"}\n{"path": "b.png", "la', "line 2: it is no JSON"),
        ("labels.jsonl", '[{"path": "a.png", "label": "cat"}]', "line 1: expected an object"),
        ("labels.jsonl", '{"path": "a.png"}', "line 1: it has no label for a.png"),
        ("labels.jsonl", '{"path": "a.png", "label": 0.5}', "line 1: expected text as label, got 0.5"),
        ("labels.jsonl", '{"path": "a.png", "label": true}', "line 1: expected text as label, got True"),
        ("labels.jsonl", '{"path": 7, "label": "cat"}', "line 1: expected text as path, got 7"),
        ("labels.jsonl", '{"path": "a.png", "label": "\\ud800"}', "line 1: expected text as label"),
        ("labels.jsonl", "[" * 100_000, "line 1: it is no JSON"),
        ("labels.parquet", b"PAR1", "no Parquet file"),
        ("labels.parquet", b"path,label\na.png,cat\n", "no Parquet file"),
        ("labels.parquet", parquet(file=["a.png"], label=["cat"]), "got 'file, label'"),
        ("labels.parquet", parquet(path=["a.png"], label=[0.5]), "row 1: expected text as label, got 0.5"),
        ("labels.parquet", parquet(path=["a.png", None], label=["cat", "cat"]), "row 2: it has no path"),
        ("labels.parquet", parquet(path=["a.png"], label=[["cat"]]), "row 1: expected text as label"),
        ("labels.parquet", parquet(path=pa.array([b"\xff"]).cast("string", safe=False), label=["cat"]), "no Parquet"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_refused_with_its_line(name: str, data: bytes | str, message: str) -> None:
    with pytest.raises(DataError, match=rf"Labels file {name}.*{message}.* Fix: "):
        read(name, data)


def test_parquet_that_unpacks_to_far_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = parquet(path=["a.png"] * 100, label=["cat"] * 100)
    assert len(read("labels.parquet", data)) == 1
    monkeypatch.setattr(labels, "MAX_ROWS", 99)
    with pytest.raises(DataError, match="100 rows, too many"):
        read("labels.parquet", data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.csv", "Camera,path,label,day\n left ,a.png,cat,3\n,b.png,cat,4\n"),
        (
            "labels.jsonl",
            '{"camera": "left", "path": "a.png", "label": "cat", "day": 3}\n'
            '{"day": 4, "path": "b.png", "label": "cat", "camera": null, "box": [1, 2], "\\ud800": 1}\n',
        ),
        (
            "labels.parquet",
            parquet(camera=["left", None], path=["a.png", "b.png"], label=["cat"] * 2, day=[3, 4], raw=[b"1", b"2"]),
        ),
    ],
    ids=["csv", "jsonl", "parquet"],
)
def test_further_columns_are_attributes(name: str, data: bytes | str) -> None:
    found = whole(name, data).attributes
    assert {path: dict(attributes) for path, attributes in found.items()} == {
        "a.png": {"camera": "left", "day": "3"},
        "b.png": {"day": "4"},
    }


def test_attributes_of_all_kinds_become_text() -> None:
    at = np.datetime64("2026-01-02T03:04:05.000007")
    data = parquet(path=["a.png"], label=["cat"], at=[at], sharp=[True], weight=[0.5])
    [attributes] = whole("labels.parquet", data).attributes.values()
    assert dict(attributes) == {"at": "2026-01-02 03:04:05.000007", "sharp": "true", "weight": "0.5"}
    [attributes] = whole(
        "labels.jsonl", '{"path": "a", "label": "b", "sharp": true, "odd": "\\ud800"}'
    ).attributes.values()
    assert dict(attributes) == {"sharp": "true", "odd": "?"}


def test_attributes_are_bounded() -> None:
    names = [f"x{number}" for number in range(60)]
    data = ",".join(["path", "label", *names]) + "\n" + ",".join(["a.png", "cat", *["long" * 100] * 60])
    for found in (
        whole("labels.csv", data),
        whole("labels.parquet", parquet(**{name: ["long" * 100] for name in names}, path=["a.png"], label=["cat"])),
    ):
        assert [column for column, _ in found.attributes["a.png"]] == names[:50]
        assert max(len(value) for _, value in found.attributes["a.png"]) <= 200


def test_what_rows_of_one_file_disagree_on_is_no_attribute_of_it() -> None:
    found = whole("labels.csv", "path,label,camera,day\na.png,cat,left,1\na.png,cat,right,1\n")
    assert found.rows == {"a.png": {Row("cat", None)}}
    assert found.attributes == {"a.png": (("day", "1"),)}


def test_no_attribute_is_called_as_what_refit_writes() -> None:
    assert whole("labels.csv", "path,label,image_id,group\na.png,cat,x,p\n").attributes == {"a.png": ()}
