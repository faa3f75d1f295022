"""Croissant metadata of the shards (1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html).

A file set names the shards of each split, and one record set maps their columns to fields. A message is a
nested list, so the fields `prompt`, `chosen` and `rejected` take its text by a JSON path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safevid_core import __version__
from safevid_core.datasets.citation import PAPER
from safevid_core.datasets.exports.release_rows import ReleaseRows
from safevid_core.storage.file_hashes import file_sha256

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_PARQUET = "application/x-parquet"
_TYPES = {"string": "sc:Text", "double": "sc:Float", "int64": "sc:Integer", "bool": "sc:Boolean"}
# Column -> JSON path of the text in its one message.
_MESSAGES = {"prompt": "content[1].text", "chosen": "content[0].text", "rejected": "content[0].text"}


def croissant(
    rows: ReleaseRows, schema: Any, shards: Mapping[str, Sequence[Path]], folder: Path, licence: str
) -> dict[str, Any]:
    """The document `croissant.json`.

    Args:
        schema: Arrow schema of the shards.
        shards: Split -> its shards, each below `folder`.
        licence: Of the whole, such as `cc-by-4.0` or `other`.
    """
    files = [path for some in shards.values() for path in some]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"safevid_pairs_{rows.release}",
        "description": "Preference pairs about videos for safety alignment, made by the method of SafeVid "
        "(arXiv 2505.11926). Rejected responses are unsafe or unhelpful on purpose.",
        "url": "https://arxiv.org/abs/2505.11926",
        "license": licence,
        "version": rows.version or "0.0.0",
        "creator": {"@type": "sc:Organization", "name": f"SafeVid {__version__}"},
        "citeAs": PAPER,
        "distribution": [*(_file(path, folder) for path in files), *map(_file_set, shards)],
        "recordSet": [_record_set(split, schema) for split in shards],
    }


def _file(path: Path, folder: Path) -> dict[str, Any]:
    place = path.relative_to(folder).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": path.stem,
        "name": path.name,
        "contentUrl": place,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _PARQUET,
        "sha256": file_sha256(path),
    }


def _file_set(split: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"shards-{split}",
        "name": f"shards-{split}",
        "encodingFormat": _PARQUET,
        "includes": f"data/{split}-*.parquet",
    }


def _record_set(split: str, schema: Any) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "key": {"@id": f"{split}/pair_id"},
        "field": [_field(split, column) for column in schema],
    }


def _field(split: str, column: Any) -> dict[str, Any]:
    import pyarrow as pa

    source: dict[str, Any] = {"fileSet": {"@id": f"shards-{split}"}, "extract": {"column": column.name}}
    found: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{split}/{column.name}",
        "name": column.name,
        "source": source,
    }
    if column.name in _MESSAGES:
        source["transform"] = {"jsonPath": _MESSAGES[column.name]}
        return {**found, "dataType": "sc:Text", "repeated": True}
    if pa.types.is_list(column.type):
        return {**found, "dataType": _TYPES[str(column.type.value_type)], "repeated": True}
    return {**found, "dataType": _TYPES[str(column.type)]}
