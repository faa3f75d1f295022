"""A table's hash follows its names, types and values, and nothing of how they are stored."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from safevid_core.storage import hashing
from safevid_core.storage.hashing import (
    FrameHasher,
    column_hashes,
    directory_hash,
    frame_hash,
    hash_of_columns,
)

TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pl.String, st.text(max_size=5)),
    (pl.Binary, st.binary(max_size=5)),
    (pl.Boolean, st.booleans()),
    (pl.Int8, st.integers(-128, 127)),
    (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    (pl.UInt16, st.integers(0, 2**16 - 1)),
    (pl.Float16, st.floats(width=16)),
    (pl.Float32, st.floats(width=32)),
    (pl.Float64, st.floats()),
    (pl.Date, st.dates()),
    (pl.Datetime("us"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))),
    (
        pl.Datetime("ms", "UTC"),
        st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    ),
    (pl.Duration("us"), st.timedeltas(timedelta(-1000), timedelta(1000))),
    (pl.Time, st.times()),
    (pl.Decimal(12, 2), st.decimals(-1000, 1000, places=2)),
    (pl.Null, st.none()),
]


def _values_of(
    kind: Any, values: st.SearchStrategy[Any]
) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    return st.just((kind, st.one_of(st.none(), values)))


plain = st.sampled_from(TYPES).flatmap(lambda each: _values_of(*each))
kinds = st.recursive(
    plain,
    lambda inner: st.one_of(
        inner.flatmap(lambda each: _values_of(pl.List(each[0]), st.lists(each[1], max_size=3))),
        inner.flatmap(
            lambda each: _values_of(pl.Array(each[0], 2), st.lists(each[1], min_size=2, max_size=2))
        ),
        st.lists(inner, min_size=1, max_size=2).flatmap(
            lambda fields: _values_of(
                pl.Struct({f"f{n}": kind for n, (kind, _) in enumerate(fields)}),
                st.fixed_dictionaries({f"f{n}": values for n, (_, values) in enumerate(fields)}),
            )
        ),
    ),
    max_leaves=3,
)


# Only as columns of their own: pyarrow does not read lists of dictionaries from several row groups.
categories = _values_of(pl.Categorical, st.sampled_from(["", "a", "b"]))


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    rows = draw(st.integers(0, 7))
    columns = {}
    for number in range(draw(st.integers(1, 3))):
        kind, values = draw(st.one_of(kinds, categories))
        cells = draw(st.lists(values, min_size=rows, max_size=rows))
        columns[f"c{number}"] = pl.Series(cells, dtype=kind, strict=False)
    return pl.DataFrame(columns)


def _bits(frame: pl.DataFrame) -> str:
    """The cells as text that tells what the hash tells: -0.0 from 0.0, null from NaN, all NaN alike."""
    return repr(
        [(name, str(kind).replace("Categorical", "String")) for name, kind in frame.schema.items()]
    ) + repr(frame.rows())


@given(frames(), st.data())
def test_chunks_and_slices_do_not_matter(frame: pl.DataFrame, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, frame.height))
    parts = [frame.head(cut), frame.tail(frame.height - cut)]
    longer = pl.concat([frame, frame, frame], rechunk=True).slice(frame.height, frame.height)
    expected = frame_hash(frame)
    assert frame_hash(pl.concat(parts, rechunk=False)) == expected
    assert frame_hash(longer) == expected
    assert frame_hash(frame.lazy()) == expected
    hasher = FrameHasher(frame.to_arrow().schema)
    for batch in frame.to_arrow().to_batches(max_chunksize=2):
        hasher.update(batch)
    assert hash_of_columns(hasher.column_hashes()) == expected


@given(frames(), st.integers(1, 4))
def test_row_groups_of_a_file_do_not_matter(frame: pl.DataFrame, size: int) -> None:
    file = io.BytesIO()
    frame.write_parquet(file, row_group_size=size)
    stored = pq.ParquetFile(file)
    hasher = FrameHasher(stored.schema_arrow)
    for batch in stored.iter_batches(batch_size=3):
        hasher.update(batch)
    assert hasher.column_hashes() == column_hashes(frame)
    assert frame_hash(pl.read_parquet(file.getvalue())) == frame_hash(frame)


@given(frames(), frames())
def test_two_tables_have_one_hash_only_if_they_are_the_same(one: pl.DataFrame, other: pl.DataFrame) -> None:
    assert (frame_hash(one) == frame_hash(other)) == (_bits(one) == _bits(other))


@given(frames(), st.data())
def test_one_changed_cell_changes_its_column_alone(frame: pl.DataFrame, data: st.DataObject) -> None:
    assume(frame.height)
    row, name = data.draw(st.integers(0, frame.height - 1)), data.draw(st.sampled_from(frame.columns))
    cell = frame.select(name).slice(row, 1)
    others = frame.select(name).filter(pl.int_range(pl.len()) != row)
    new = data.draw(st.sampled_from([*others.iter_slices(1), cell.clear(1)]))
    assume(_bits(new) != _bits(cell))
    column = pl.concat([frame[name][:row], new[name], frame[name][row + 1 :]])
    before, after = column_hashes(frame), column_hashes(frame.with_columns(column))
    assert {each for each in before if before[each] != after[each]} == {name}
    assert hash_of_columns(before) != hash_of_columns(after)


@given(frames())
def test_the_order_of_rows_and_columns_counts(frame: pl.DataFrame) -> None:
    turned = frame[list(range(frame.height))[::-1]]
    assert (frame_hash(frame) == frame_hash(turned)) == (_bits(frame) == _bits(turned))
    if frame.width > 1:
        assert frame_hash(frame.select(frame.columns[::-1])) != frame_hash(frame)
    assert frame_hash(frame.rename({"c0": "d"})) != frame_hash(frame)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([None], [""]),
        ([["a"], ["b"]], [["a", "b"], []]),
        ([[]], [None]),
        ([[None]], [[]]),
        ([["ab"]], [["a", "b"]]),
        (["ab", "c"], ["a", "bc"]),
        ([0.0], [-0.0]),
        ([math.nan], [None]),
        ([{"x": None}], [None]),
        ([1], ["1"]),
        ([b"a"], ["a"]),
        ([None, 1], [1, None]),
    ],
)
def test_values_that_look_alike_are_kept_apart(one: list[Any], other: list[Any]) -> None:
    first = pl.Series("a", one)
    second = (
        pl.Series("a", other) if any(x is not None for x in other) else pl.Series("a", other, first.dtype)
    )
    if first.null_count() == len(first):
        first = first.cast(second.dtype)
    assert frame_hash(first.to_frame()) != frame_hash(second.to_frame())


def _hash(array: pa.Array) -> str:
    hasher = FrameHasher(pa.schema([("a", array.type)]))
    hasher.update(pa.table({"a": array}))
    return hasher.column_hashes()["a"]


STRINGS = ["a", None, "", "a longer one than fits a view", "é"]
LAYOUTS: list[Callable[[pa.Array], pa.Array]] = [
    lambda array: array.cast(pa.large_string()),
    lambda array: array.cast(pa.string_view()),
    lambda array: array.dictionary_encode(),
    lambda array: pa.concat_arrays([array, array]).slice(len(array)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_string_layouts_are_one_type(layout: Callable[[pa.Array], pa.Array]) -> None:
    array = pa.array(STRINGS)
    assert _hash(layout(array)) == _hash(array) == column_hashes(pl.DataFrame({"a": STRINGS}))["a"]
    inside = pa.ListArray.from_arrays([0, 2, 5], layout(array))
    assert _hash(inside) == _hash(pa.array([STRINGS[:2], STRINGS[2:]]))


def test_list_layouts_are_one_type() -> None:
    rows = [[1], None, [], [2, None]]
    one = pa.array(rows, pa.list_(pa.int16()))
    assert _hash(pa.array(rows, pa.large_list(pa.int16()))) == _hash(one)
    assert _hash(pa.array([[1, 2]], pa.list_(pa.int16(), 2))) != _hash(
        pa.array([[1, 2]], pa.list_(pa.int16()))
    )


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=20), st.integers(0, 2**32))
def test_what_lies_below_nulls_and_behind_the_end_does_not_matter(cells: list[int | None], seed: int) -> None:
    rng = np.random.default_rng(seed)
    valid = np.array([cell is not None for cell in cells])
    mask = pa.py_buffer(np.packbits(np.append(valid, rng.random(8) > 0.5), bitorder="little").tobytes())

    values = rng.integers(0, 99, len(cells) + 8).astype("<i8")
    values[: len(cells)][valid] = [cell for cell in cells if cell is not None]
    dirty = pa.Array.from_buffers(pa.int64(), len(cells), [mask, pa.py_buffer(values.tobytes())])
    clean = pa.array(cells, pa.int64())
    assert dirty.to_pylist() == cells
    assert _hash(dirty) == _hash(clean)

    texts = [str(value) * 3 for value in values]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<i8")
    buffers = [mask, pa.py_buffer(offsets.tobytes()), pa.py_buffer("".join(texts).encode())]
    dirty_text = pa.Array.from_buffers(pa.large_string(), len(cells), buffers)
    assert _hash(dirty_text) == _hash(
        pa.array([None if c is None else str(c) * 3 for c in cells], pa.string())
    )

    # A null list, a null pair and a null struct over values that are not null.
    child = pa.array(np.repeat(values[: len(cells)], 2))
    steps = pa.py_buffer((np.arange(len(cells) + 1) * 2).astype("<i8").tobytes())
    lists = pa.Array.from_buffers(pa.large_list(pa.int64()), len(cells), [mask, steps], children=[child])
    pairs = pa.Array.from_buffers(pa.list_(pa.int64(), 2), len(cells), [mask], children=[child])
    twos = [None if cell is None else [cell, cell] for cell in cells]
    assert _hash(lists) == _hash(pa.array(twos, pa.large_list(pa.int64())))
    assert _hash(pairs) == _hash(pa.array(twos, pa.list_(pa.int64(), 2)))
    kind = pa.struct([("x", pa.int64())])
    structs = pa.Array.from_buffers(kind, len(cells), [mask], children=[pa.array(values[: len(cells)])])
    assert _hash(structs) == _hash(pa.array([None if c is None else {"x": c} for c in cells], kind))
    assert _hash(structs.slice(1)) == _hash(pa.array(structs.slice(1).to_pylist(), kind))


@pytest.mark.parametrize("width", [16, 32, 64])
def test_every_nan_is_one_value(width: int) -> None:
    quiet = {16: 0x7E00, 32: 0x7FC00000, 64: 0x7FF8000000000000}[width]
    bits = np.array([quiet, quiet + 1, quiet | 1 << (width - 1), (quiet >> 1) | quiet], f"<u{width // 8}")
    floats = bits.view(f"<f{width // 8}")
    assert np.isnan(floats).all()
    assert len({_hash(pa.array(floats[n : n + 1])) for n in range(len(floats))}) == 1
    infinite = np.array([np.inf], floats.dtype)
    assert _hash(pa.array(infinite)) != _hash(pa.array(floats[:1]))


def test_batches_of_the_hash_itself_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"a": [None, *range(1000)], "b": [[x] * (x % 3) for x in range(1001)]})
    expected = frame_hash(frame)
    monkeypatch.setattr(hashing, "BATCH_ROWS", 7)
    assert frame_hash(frame) == frame_hash(frame.lazy()) == expected


@pytest.mark.parametrize("kind", [pa.map_(pa.string(), pa.string()), pa.list_view(pa.int8()), pa.uuid()])
def test_a_type_that_cannot_be_hashed_is_named(kind: pa.DataType) -> None:
    with pytest.raises(TypeError, match="column odd cannot be hashed"):
        FrameHasher(pa.schema([("odd", kind)]))


def golden() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "string": ["a", None, "é"],
            "bool": [True, None, False],
            "int": [1, None, -1],
            "half": [0.5, math.nan, None],
            "double": [0.1, -0.0, math.inf],
            "vector": [[1.0, 2.0], [], None],
            "pair": [[1, 2], None, [3, None]],
            "struct": [{"x": 1, "y": ["a"]}, None, {"x": None, "y": []}],
            "binary": [b"\0", b"", None],
            "day": [date(2026, 1, 2), None, date(1969, 12, 31)],
            "clock": [time(1, 2, 3), None, time(0)],
            "moment": [datetime(2026, 1, 2, tzinfo=UTC), None, datetime(1969, 1, 1, tzinfo=UTC)],
            "span": [timedelta(seconds=1), None, timedelta(days=-1)],
            "price": [Decimal("1.20"), None, Decimal("-3.00")],
            "scene": ["park", "street", None],
        },
        schema={
            "string": pl.String, "bool": pl.Boolean, "int": pl.Int32, "half": pl.Float16,
            "double": pl.Float64, "vector": pl.List(pl.Float16), "pair": pl.Array(pl.UInt8, 2),
            "struct": pl.Struct({"x": pl.Int64, "y": pl.List(pl.String)}), "binary": pl.Binary,
            "day": pl.Date, "clock": pl.Time, "moment": pl.Datetime("us", "UTC"), "span": pl.Duration("ms"),
            "price": pl.Decimal(10, 2), "scene": pl.Categorical,
        },
    )  # fmt: skip


GOLDEN = {
    "string": "4b8e5f977c6aa5804496bb98dd7d40cb",
    "bool": "a0521b007207d9c43c7aa94e348f7324",
    "int": "2dd37cf5513dc4b63a704d1862040e67",
    "half": "213b374227101be477940948bc66b1f8",
    "double": "995055ea1d355a85c30f9c8e89161dd5",
    "vector": "b860fdeae917ae8bfadf858966466818",
    "pair": "7725bccb0e99049d5e807ade6dedf566",
    "struct": "e6702cd7e222d902abd8f6443d2f1fa5",
    "binary": "5b8d3ea8d81218174162905ea3b941d2",
    "day": "a384c36d75740503623f14dcf65d6010",
    "clock": "2cb2e4c59422b58c5bfd2e817c832e55",
    "moment": "7db4a05ad02845ea442c56f5535afc76",
    "span": "941a94efb3a1282ee43d2a72d8f32596",
    "price": "b45779762347d57c9af4d38f20097170",
    "scene": "ce49a3799bc15033c4fa31ede696c477",
}


def test_the_hashes_are_those_of_every_version() -> None:
    """A change here makes every table of every lake again: raise `LAYOUT` with it."""
    assert column_hashes(golden()) == GOLDEN
    assert frame_hash(golden()) == "02a59964b8d45fe01389381125ec9f38"


def test_a_directory_is_hashed_by_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.bin").write_bytes(b"1" * 3_000_000)
    (tmp_path / "two").write_bytes(b"")
    assert directory_hash(tmp_path) == "39ed25e01deb4d38ff820d0763a69e71"
    (tmp_path / "two").rename(tmp_path / "three")
    assert directory_hash(tmp_path) != "39ed25e01deb4d38ff820d0763a69e71"
