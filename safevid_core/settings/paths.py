"""The paths in a tree of settings: the values whose field has the type `Path`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def map_paths(tree: Any, annotation: Any, change: Callable[[str], str]) -> Any:
    """The tree with every path changed.

    Args:
        tree: What a settings file, a variable or a caller gives, before validation; not modified.
        annotation: Type of the tree: a group, or a type with groups in it such as `tuple[Source, ...]`.
        change: Called with each path as text.
    """
    if isinstance(tree, str | Path):
        return change(str(tree)) if Path in _types_in(annotation) else tree
    if isinstance(tree, Mapping):
        return {key: map_paths(value, _type_below(annotation, key), change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [map_paths(value, _type_of_items(annotation), change) for value in tree]
    return tree


def groups_in(annotation: Any) -> list[type[BaseModel]]:
    """The groups that a type holds, such as `Source` in `tuple[Source, ...]`."""
    return [each for each in _types_in(annotation) if issubclass(each, BaseModel)]


def _types_in(annotation: Any) -> Iterator[type]:
    """The classes in a type: `str` and `Path` in `dict[str, Path | None]`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        yield annotation
    for inner in get_args(annotation):
        yield from _types_in(inner)


def _type_of_items(annotation: Any) -> Any:
    """The type of a list's items: `str` in `tuple[str, ...] | Path`; the type itself if it names no list."""
    for each in (annotation, *get_args(annotation)):
        if get_origin(each) in (list, tuple):
            return get_args(each)[0]
    return annotation


def _type_below(annotation: Any, key: Any) -> Any:
    """The type of a key's value; None if the key is unknown."""
    for each in (annotation, *get_args(annotation)):
        if get_origin(each) is dict:
            return get_args(each)[1]
        if isinstance(each, type) and issubclass(each, BaseModel) and key in each.model_fields:
            return each.model_fields[key].annotation
    return None
