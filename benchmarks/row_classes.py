"""How long 350,000 pairs take as objects: frozen dataclass, NamedTuple, pydantic model, dictionary.

    python -m benchmarks.row_classes

Reads the pairs from Parquet and prints CPU seconds, the best of four: to make the objects, and to read four
attributes of each.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import polars as pl
from pydantic import ConfigDict, TypeAdapter, create_model

from safevid_core.contracts.rows import Pair, columns_of, rows_of
from safevid_core.contracts.tables import PAIRS

PAIRS_MADE, TAKEN = 350_000, 4
_TEXT = "words of an answer " * 12


def write_pairs(path: Path) -> None:
    """Pairs of the table's schema, three texts of 250 characters each."""
    numbers = range(PAIRS_MADE)

    def value(name: str, dtype: pl.DataType, i: int) -> Any:
        if isinstance(dtype, pl.List):
            return [_value(name, dtype.inner, i)]
        return _value(name, dtype, i)

    columns = {name: [value(name, dtype, i) for i in numbers] for name, dtype in PAIRS.schema.items()}
    pl.DataFrame(columns, schema=PAIRS.schema).write_parquet(path)


def _value(name: str, dtype: Any, i: int) -> Any:
    if dtype == pl.Float64:
        return i / 2
    if dtype == pl.Boolean:
        return i % 2 == 0
    if dtype == pl.Int64:
        return i
    return f"{name}-{i}-{_TEXT if name in ('prompt', 'chosen', 'rejected') else ''}"


def makers(frame: pl.DataFrame) -> dict[str, Callable[[], list[Any]]]:
    """Name -> makes all objects of a frame."""
    hints = {name: hint for name, hint in get_type_hints(Pair).items() if name in columns_of(Pair)}
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items()}
    model = create_model("Model", __config__=ConfigDict(frozen=True), **fields)
    models = TypeAdapter(list[model])  # type: ignore[valid-type]
    named: Any = NamedTuple("Named", list(hints.items()))  # type: ignore[misc]
    wanted = frame.select(list(hints))
    return {
        "frozen dataclass": lambda: rows_of(frame, Pair),
        "NamedTuple": lambda: [named._make(values) for values in wanted.iter_rows()],
        "pydantic": lambda: models.validate_python(wanted.to_dicts()),
    }


def read(rows: Iterable[Any]) -> int:
    return sum(len(row.pair_id) + len(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "pairs.parquet")
        frame = pl.read_parquet(Path(folder) / "pairs.parquet")
    for name, make in makers(frame).items():
        made, used = [], []
        for _ in range(TAKEN):
            gc.collect()
            start = time.process_time()
            rows = make()
            between = time.process_time()
            read(rows)
            made.append(between - start)
            used.append(time.process_time() - between)
            del rows
        print(f"{name:17} made in {min(made):.2f} s, read in {min(used):.3f} s")


if __name__ == "__main__":
    main()
