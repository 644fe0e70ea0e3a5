"""Labels files: CSV with a header, JSONL or Parquet, with the columns path, label and, if there are any, group.

Other columns are attributes, which images can be told apart by. Labels and groups are text; whole numbers become
text. A file that cannot be understood to its last row is refused as a whole: half of the labels would be a different
dataset, not half of it.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow_hotfix  # noqa: F401 - pyarrow < 14 unpickles what a Parquet file's schema tells it to (CVE-2023-47248)

from pipeline.errors import DataError
from pipeline.sources.item import tidy

MAX_BYTES = 256 * 1024 * 1024  # 4 million rows of 60 bytes; a larger file is not what was meant
MAX_ROWS = 10_000_000  # Parquet packs equal rows into nothing
MAX_ATTRIBUTES = 50  # further columns; later ones are left out
MAX_CHARACTERS = 200  # of an attribute
_COLUMNS = ("path", "label", "group")
_TAKEN = (*_COLUMNS, "image_id")  # names that no attribute can have

Attributes = tuple[tuple[str, str], ...]  # column and value, in the order of the file; empty cells are left out


class Row(NamedTuple):
    label: str
    group: str | None


@dataclass(frozen=True)
class Labels:
    """Path in the source (NFC) to what is said of it: more than one row only if they contradict each other, and the
    attributes that all its rows agree on."""

    rows: dict[str, set[Row]]
    attributes: dict[str, Attributes]


def read(name: str, data: bytes, base: str) -> Labels:
    """Read a labels file.

    `name` tells the format by its suffix, one of `FORMATS`, and is named in errors. Paths may begin with `./` or with
    `base`, the uri that all files of the source begin with.
    Raises `DataError` with the line or row and what to do.
    """
    rows: dict[str, set[Row]] = {}
    attributes: dict[str, Attributes] = {}
    columns: dict[str, None] = {}  # of attributes, in the order of the file
    base = unicodedata.normalize("NFC", base)
    for where, cells in FORMATS[Path(name).suffix.casefold()](name, data):
        path, label, group = (_cell(where, column, cells.get(column)) for column in _COLUMNS)
        if not path or not label:
            missing = "path" if not path else f"label for {path}"
            raise _malformed(where, f"it has no {missing}", "fill it in, or remove the row")
        path = path.removeprefix(base).removeprefix("./")
        rows.setdefault(path, set()).add(Row(label, group or None))
        found = tuple(_attributes(cells, columns))
        attributes[path] = tuple(each for each in attributes.get(path, found) if each in found)
    if not rows:
        raise _malformed(name, "it names no image", "add a row for each image")
    return Labels(rows, attributes)


def _attributes(cells: Mapping[str, Any], columns: dict[str, None]) -> Iterator[tuple[str, str]]:
    """The cells that are no label. `columns`: those met so far, to which new ones are added while there is room."""
    for column, value in cells.items():
        if column in _TAKEN or value is None or isinstance(value, dict | list | bytes):
            continue
        if column not in columns:
            if len(columns) == MAX_ATTRIBUTES or not column.strip() or not column.isprintable():
                continue
            columns[column] = None
        written = json.dumps(value) if isinstance(value, bool) else str(value)
        if text := tidy(written[:MAX_CHARACTERS].encode(errors="replace").decode()):
            yield column, text


def _cell(where: str, column: str, value: Any) -> str:
    """`value` as NFC text; labels and groups without spaces around them, file names may have some."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and column != "path":
        return str(value)
    try:
        value.encode()  # JSON can hold halves of surrogate pairs, which no table can
    except (AttributeError, UnicodeEncodeError):
        raise _malformed(where, f"expected text as {column}, got {value!r}", "write it as text") from None
    return unicodedata.normalize("NFC", value) if column == "path" else tidy(value)


def _csv(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(_text(name, data), newline=""), strict=True, skipinitialspace=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        _require(name, header)
        for cells in reader:
            where = f"{name}, line {reader.line_num}"
            if cells and len(cells) != len(header):
                raise _malformed(
                    where,
                    f"expected {len(header)} cells as in the header, got {len(cells)}",
                    'put a path or label with a comma in it in double quotes: "a, b.jpg"',
                )
            if cells:
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise _malformed(f"{name}, line {reader.line_num}", str(error), "mend the quotes of this line") from None


def _jsonl(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_text(name, data).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(where, f"it is no JSON ({error})", "write one JSON object per line") from None
        if not isinstance(value, dict):
            raise _malformed(where, f"expected an object, got {line[:80]}", 'write {"path": "…", "label": "…"}')
        yield where, value


def _parquet(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > MAX_ROWS or sum(group.total_byte_size for group in groups) > MAX_BYTES:
            raise _malformed(name, f"it has {file.metadata.num_rows} rows, too many", "split the source")
        _require(name, file.schema_arrow.names)
        start = 1
        known = [field.name for field in file.schema_arrow if field.name in _COLUMNS]
        simple = [field.name for field in file.schema_arrow if field.name not in _TAKEN and not _opaque(field.type)]
        for batch in file.iter_batches(columns=known + simple[:MAX_ATTRIBUTES]):
            # Arrow writes out what Python has no type for, such as nanoseconds.
            texts = {name: batch[name].cast(pa.string()) for name in simple[:MAX_ATTRIBUTES]}
            table = pa.table({name: batch[name] for name in known} | texts)
            for number, row in enumerate(table.to_pylist(), start=start):
                yield f"{name}, row {number}", row
            start += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise _malformed(name, f"it is no Parquet file that can be read ({error})", "write it again") from None


def _opaque(kind: pa.DataType) -> bool:
    """Columns of thumbnails, embeddings and the like, which nobody tells images apart by, and which are large."""
    tests = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


FORMATS: Mapping[str, Callable[[str, bytes], Iterator[tuple[str, Mapping[str, Any]]]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _malformed(f"{name}, line {line}", "it is not UTF-8", "save it as UTF-8 (Excel: “CSV UTF-8”)") from None


def _require(name: str, header: list[str]) -> None:
    if header.count("path") != 1 or header.count("label") != 1 or header.count("group") > 1:
        raise _malformed(
            name,
            f"expected the columns path, label and at most one group, got {', '.join(header[:20])!r}",
            "name the columns in the first line: path,label or path,label,group",
        )


def _malformed(where: str, problem: str, fix: str) -> DataError:
    return DataError(f"Labels file {where}: {problem}.", fix=fix)
