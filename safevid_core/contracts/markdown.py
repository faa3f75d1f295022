"""Tables in Markdown, as GitHub reads them (GitHub Flavored Markdown, "Tables").

`tabulate` and polars pad every cell to the width of its column and leave a `|` in a cell as it is, which
makes two cells of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_OPEN_PIPE = re.compile(r"(?<!\\)\|")


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A table without a line break at its end.

    Args:
        heads: One for each column; `""` for a column without a name.
        rows: As many cells as `heads`. A line break within a cell becomes a space, and a `|` becomes `\\|`
            unless it is escaped already.
    """
    lines = [_line(heads), "|" + "---|" * len(heads)]
    return "\n".join([*lines, *map(_line, rows)])


def _line(cells: Iterable[object]) -> str:
    texts = (_OPEN_PIPE.sub(r"\\|", " ".join(str(cell).splitlines())) for cell in cells)
    return f"| {' | '.join(texts)} |"
