"""Checks of the entries in the YAML files of the taxonomy and the scenes. Each raises a `TaxonomyError`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from safevid_core.contracts.errors import SafeVidError

# The parser of libyaml, if PyYAML has it, reads the taxonomy in 34 ms, that of Python in 271 ms.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Scenes name partitions, and subcategories name groups of rows.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class TaxonomyError(SafeVidError, ValueError):
    """The taxonomy file cannot be used. The message names the file and the entry, and says what to do."""


def check_ids(ids: Iterable[str], path: Path) -> None:
    """Check that ids can name partitions and groups of rows, and that none is repeated."""
    seen: set[str] = set()
    for each in ids:
        if not _ID.fullmatch(each):
            raise TaxonomyError(
                f"{path.name}: id {each!r} may have letters, digits, `_`, `-` and `.` only; rename it"
            )
        if each in seen:
            raise TaxonomyError(f"{path.name}: id {each!r} is used twice; rename one")
        seen.add(each)


def is_list_of_texts(value: Any) -> bool:
    """Whether a value is a list of texts, none of them empty."""
    return isinstance(value, list) and all(isinstance(each, str) and each.strip() for each in value)


def entries_of(tree: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """The entries below a key, at least one."""
    entries = tree.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise TaxonomyError(f"{path.name}: `{key}` of {tree.get('id', 'the file')} must be a list of entries")
    return entries


def require_texts(
    entry: Mapping[str, Any], path: Path, texts: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """Check that an entry has some texts, and no key but these and `others`."""
    for name in texts:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            whose = str(entry.get("id", entry))[:100]
            raise TaxonomyError(
                f"{path.name}: `{name}` of {whose} must be a text that is not empty; write it"
            )
    unknown = {str(key) for key in entry} - {*texts, *others}
    if unknown:
        raise TaxonomyError(
            f"{path.name}: {entry['id']} has unknown keys {', '.join(sorted(unknown))}; remove them"
        )


def read_tree(path: Path) -> dict[str, Any]:
    """The content of a file, which has a version and a source."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaxonomyError(
            f"{path}: cannot be read: {str(error).splitlines()[0]}; check the path and the YAML"
        ) from None
    if not isinstance(tree, dict) or not tree.get("version") or not tree.get("source"):
        raise TaxonomyError(f"{path}: must be a mapping with `version` and `source`")
    return tree


def stamp_of(path: Path) -> tuple[int, ...]:
    """Size, time and inode of a file. Empty if it cannot be found; reading it then says so."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


def hash_of(tree: Mapping[str, Any]) -> str:
    """20 hex digits, a hash of the content of a file."""
    # YAML reads `version: 2025-11-28` as a date, which JSON writes as text here.
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:20]
