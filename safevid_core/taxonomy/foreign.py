"""The taxonomies in which others report, read from `foreign.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from safevid_core.taxonomy.entries import TaxonomyError, is_list_of_texts

FOREIGN_FILE = Path(__file__).with_name("foreign.yaml")


@dataclass(frozen=True)
class ForeignTaxonomy:
    """A taxonomy in which others report.

    Attributes:
        id: Its id in `codes`. Example: `llama_guard`.
        name: Name for people.
        source: Where it is published.
        codes: Code of each category -> its name.
    """

    id: str
    name: str
    source: str
    codes: Mapping[str, str]


@lru_cache
def foreign_taxonomies() -> dict[str, ForeignTaxonomy]:
    """The taxonomies in which others report, by id."""
    tree = yaml.safe_load(FOREIGN_FILE.read_text(encoding="utf-8"))["taxonomies"]
    return {name: ForeignTaxonomy(name, **entry) for name, entry in tree.items()}


def codes_of(entry: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    """The foreign codes of a subcategory: id of a taxonomy -> codes.

    Raises:
        TaxonomyError: If a taxonomy or a code is unknown.
    """
    known = foreign_taxonomies()
    codes = entry.get("codes") or {}
    if not isinstance(codes, dict) or not all(map(is_list_of_texts, codes.values())):
        raise TaxonomyError(
            f"{path.name}: `codes` of {entry['id']} must give each foreign taxonomy a list of codes"
        )
    for foreign, some in codes.items():
        if foreign not in known:
            raise TaxonomyError(
                f"{path.name}: {entry['id']} has codes of {foreign!r}, which is no known taxonomy; known: "
                f"{', '.join(known)}"
            )
        unknown = [code for code in some if code not in known[foreign].codes]
        if unknown:
            raise TaxonomyError(
                f"{path.name}: {entry['id']} has the code {unknown[0]!r}, which {known[foreign].name} does "
                f"not have; known: {', '.join(known[foreign].codes)}"
            )
    return {foreign: tuple(some) for foreign, some in codes.items()}
