"""Hashes tables, settings and directories.

A table's hash covers the names, types and values of its columns in row order. It is computed from one Arrow
batch at a time. It does not depend on how the rows are stored: chunks, Parquet row groups, slice offsets,
string layouts (string, large_string, string_view, dictionary) and the bytes below nulls are not in it. It
does not depend on the version of polars, because this module defines the bytes that are hashed.

The hash of a column covers a type name, the number of values, the positions of the nulls, and the values that
are not null. Values of variable length are hashed as lengths and contents. Lists and structs also hash their
children. Each part is one running SHA-256, so the size of the batches makes no difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from safevid_core.contracts.ids import content_id

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 65_536
_BATCH_BYTES = 32 << 20
_LENGTH = 32  # hex digits of a hash: 128 bits
_BLOCK = 1 << 18  # values searched for NaN at a time; 512 KiB of float16 stay in the processor's cache
# Bytes of a float -> mask of its bits without the sign, the bits of infinity, the bits that stand for any
# NaN.
_FLOAT_BITS: dict[int, tuple[Any, Any, Any]] = {
    2: (np.uint16(0x7FFF), np.uint16(0x7C00), np.uint16(0x7E00)),
    4: (np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint32(0x7FC00000)),
    8: (
        np.uint64(0x7FFFFFFFFFFFFFFF),
        np.uint64(0x7FF0000000000000),
        np.uint64(0x7FF8000000000000),
    ),
}


def frame_hash(frame: pl.DataFrame | pl.LazyFrame) -> str:
    """A hash of a table's column names, types and values, in column and row order.

    All NaN are equal. -0.0 and 0.0 differ, and so do null and an empty string. A categorical column has the
    hash of its strings.

    Args:
        frame: A lazy frame is collected batch by batch.

    Returns:
        32 hex digits of a SHA-256.

    Raises:
        TypeError: If a column has a type that cannot be hashed, such as a Python object.
    """
    return hash_of_columns(column_hashes(frame))


def column_hashes(frame: pl.DataFrame | pl.LazyFrame) -> dict[str, str]:
    """Column name -> hash of its type and values, in column order; see :func:`frame_hash`."""
    hasher = FrameHasher(_arrow(pl.DataFrame(schema=frame.collect_schema())).schema)
    for batch in _batches(frame):
        hasher.update(batch)
    return hasher.column_hashes()


def hash_of_columns(hashes: Mapping[str, str]) -> str:
    """The hash of a table whose columns have these hashes; see :func:`column_hashes`."""
    return content_id("table", *(part for column in hashes.items() for part in column), length=_LENGTH)


class FrameHasher:
    """Running hashes of the columns of a table that arrives in Arrow batches.

    Args:
        schema: The schema of the batches. Batches may differ from it in string and list layouts.

    Raises:
        TypeError: If a column has a type that cannot be hashed.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._columns: dict[str, _Values] = {}
        for field in schema:
            try:
                self._columns[field.name] = _Values(_plain_type(field.type))
            except TypeError as error:
                raise TypeError(f"column {field.name} cannot be hashed: {error}") from None

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Add the rows of a batch. Columns that are not in the schema are ignored."""
        for name, values in self._columns.items():
            column = batch.column(name)
            for chunk in getattr(column, "chunks", [column]):
                values.update(chunk)

    def column_hashes(self) -> dict[str, str]:
        """Column name -> hash of the rows so far, in the schema's order."""
        return {name: values.digest().hex()[:_LENGTH] for name, values in self._columns.items()}


class _Values:
    """Running hash of one column, or of one level of a nested column."""

    def __init__(self, kind: pa.DataType) -> None:
        import pyarrow.types as kinds

        self._kind = kind
        self._name = _name_of(kind)
        self._rows = 0
        self._nulls, self._lengths, self._contents = (hashlib.sha256() for _ in range(3))
        self._children: list[_Values] = []
        if kinds.is_struct(kind):
            self._children = [_Values(kind.field(index).type) for index in range(kind.num_fields)]
        elif kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
            self._children = [_Values(kind.value_type)]

    def digest(self) -> bytes:
        head = f"{len(self._name.encode())}:{self._name}:{self._rows}:".encode()
        parts = [part.digest() for part in (self._nulls, self._lengths, self._contents)]
        parts += [child.digest() for child in self._children]
        return hashlib.sha256(head + b"".join(parts)).digest()

    def update(self, array: pa.Array) -> None:
        import pyarrow.types as kinds

        if array.type != self._kind:
            array = array.cast(self._kind)
        nulls = self._add_nulls(array)
        kind = self._kind
        if kinds.is_null(kind):
            return
        if kinds.is_struct(kind):
            # The fields of a null struct may have any values, so they are left out.
            valid = array.is_valid() if nulls else None
            for index, child in enumerate(self._children):
                field = array.field(index)
                child.update(field if valid is None else field.filter(valid))
        elif self._children:
            self._add_list(array)
        elif kinds.is_large_string(kind) or kinds.is_large_binary(kind):
            self._add_bytes(array.drop_null() if nulls else array)
        else:
            self._add_fixed(array.drop_null() if nulls else array)

    def _add_nulls(self, array: pa.Array) -> int:
        """Add the positions of the nulls, counted from the column's first row, and return their number."""
        nulls = int(array.null_count)
        if nulls:
            positions = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)) + self._rows
            self._nulls.update(positions.astype("<i8").data)
        self._rows += len(array)
        return nulls

    def _add_list(self, array: pa.Array) -> None:
        import pyarrow.compute as pc

        lengths = pc.list_value_length(array).drop_null().to_numpy(zero_copy_only=False)
        self._lengths.update(np.ascontiguousarray(lengths, dtype="<i8").data)
        self._children[0].update(array.flatten())  # without the values below null lists

    def _add_bytes(self, array: pa.Array) -> None:
        if not len(array):
            return
        _, offset_bytes, contents = array.buffers()
        offsets = np.frombuffer(offset_bytes, "=i8", len(array) + 1, array.offset * 8)
        self._lengths.update(np.diff(offsets).astype("<i8", copy=False).data)
        if contents is not None:
            self._contents.update(memoryview(contents)[offsets[0] : offsets[-1]])

    def _add_fixed(self, array: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.types as kinds

        if not len(array):
            return
        if kinds.is_boolean(array.type):
            array = array.cast(pa.uint8())
        width = array.type.bit_width // 8
        start = array.offset * width
        stored = memoryview(array.buffers()[1])[start : start + len(array) * width]
        if kinds.is_floating(array.type):
            for block in _with_one_nan(np.frombuffer(stored, f"=u{width}")):
                self._contents.update(block.data)
        else:
            self._contents.update(stored)


def _with_one_nan(bits: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of the floats with these bits, with every NaN replaced by the same one."""
    magnitude, infinity, nan = _FLOAT_BITS[bits.itemsize]
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        odd = (block & magnitude) > infinity
        yield np.where(odd, nan, block) if odd.any() else block


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The layout in which values of a type are hashed: large strings and lists, no dictionaries."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if isinstance(kind, pa.BaseExtensionType):
        raise TypeError(f"it has the type {kind}")
    if kinds.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return pa.large_string()
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind):
        return pa.large_binary()
    if kinds.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if kinds.is_struct(kind):
        return pa.struct([(field.name, _plain_type(field.type)) for field in kind])
    if kinds.is_nested(kind):  # maps, unions, and list views, which pyarrow 26 casts to wrong lists
        raise TypeError(f"it has the type {kind}")
    return kind


def _name_of(kind: pa.DataType) -> str:
    """The name of a plain type. It is defined here, so that no library's spelling is in a hash."""
    import pyarrow.types as kinds

    if kinds.is_large_string(kind):
        return "string"
    if kinds.is_large_binary(kind):
        return "binary"
    if kinds.is_large_list(kind):
        return "list"
    if kinds.is_fixed_size_list(kind):
        return f"array {kind.list_size}"
    if kinds.is_struct(kind):
        return "struct " + json.dumps([field.name for field in kind])
    if kinds.is_timestamp(kind):
        return f"datetime {kind.unit} {kind.tz or ''}"
    if kinds.is_duration(kind):
        return f"duration {kind.unit}"
    if kinds.is_time(kind):
        return f"time {kind.unit}"
    if kinds.is_decimal(kind):
        return f"decimal{kind.bit_width} {kind.precision} {kind.scale}"
    if kinds.is_fixed_size_binary(kind):
        return f"bytes {kind.byte_width}"
    if kinds.is_signed_integer(kind):
        return f"int{kind.bit_width}"
    if kinds.is_unsigned_integer(kind):
        return f"uint{kind.bit_width}"
    if kinds.is_floating(kind):
        return f"float{kind.bit_width}"
    if kinds.is_null(kind) or kinds.is_boolean(kind) or kinds.is_date32(kind):
        return "null" if kinds.is_null(kind) else "bool" if kinds.is_boolean(kind) else "date"
    raise TypeError(f"it has the type {kind}")


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _batches(frame: pl.DataFrame | pl.LazyFrame) -> Iterator[pa.Table]:
    """A frame as Arrow tables of at most `BATCH_ROWS` rows and about `_BATCH_BYTES`, one at a time."""
    parts: Iterable[pl.DataFrame] = [frame] if isinstance(frame, pl.DataFrame) else _collected(frame)
    for part in parts:
        row_bytes = part.estimated_size() / max(1, part.height)
        rows = max(1_024, min(BATCH_ROWS, int(_BATCH_BYTES / max(1.0, row_bytes))))
        for start in range(0, part.height, rows):
            yield _arrow(part.slice(start, rows))


def _collected(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    yield from frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)


def settings_hash(*groups: Any) -> str:
    """A hash of settings groups (pydantic models or plain values), for a stage's inputs."""
    texts = [
        g.model_dump_json() if hasattr(g, "model_dump_json") else json.dumps(g, sort_keys=True, default=str)
        for g in groups
    ]
    return content_id(*texts)


def directory_hash(folder: Path) -> str:
    """SHA-256 over a directory's relative paths and file bytes, as 32 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_LENGTH]
