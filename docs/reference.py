"""The references of settings and tables, written from the code: docs/settings.md and docs/tables.md.

Run with ``python -m docs.reference`` after a change of either. A test compares the committed pages with the
code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import polars as pl
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from safevid_core.contracts import tables
from safevid_core.contracts.tables import Table
from safevid_core.settings import PACKAGE, PROFILES, Settings, load_settings
from safevid_core.settings.paths import groups_in

FOLDER = Path(__file__).resolve().parent
# The description of a setting ends in where its value comes from.
SOURCE = re.compile(r" (Ours|Paper(?:, section \d+(?:\.\d+)*)?)\.$")
_LONGEST = 60
# Profile -> the profile with which the page compares it.
_NEAREST = {"small": "pocket"}
# What a row of each table is.
ROWS = {
    "pocket_clips": "A source of rendered clips.",
    "clip_manifest": "A clip of a source, with what its file holds.",
    "scene_assignments": "A clip with its scene, its embedding and its near-duplicates.",
    "corpus_split": "A clip with its side: `train` or `benchmark`.",
    "decided_sides": "A decision about the side of a source video, a file or a twin group.",
    "withdrawn": "The tombstone of a withdrawn clip.",
    "release_versions": "A version of the release, written once.",
    "video_corpus": "A clip that was selected for the corpus.",
    "signal_descriptions": "What the signal describer measured on a clip.",
    "descriptions": "The reconciled description of a clip.",
    "pair_allocation": "A stratum of the target: a scene, a subcategory, a style and an expectation.",
    "pair_yield": "A stratum of the target with what became of its queries.",
    "query_plan": "A query that is to be written: a clip, a subcategory and a style.",
    "query_plan_without_descriptions": "A query that is to be written without a description.",
    "lossy_query_plan": "A query that is to be written from a description that lacks a detail.",
    "safevidbench_plan": "A query that is to be written for SafeVidBench.",
    "pair_noise": "A sampled pair with what a second judge says of it.",
    "pair_validation": "A figure that says how often people find pairs sound.",
    "taxonomy_queries": "A query about a clip, for one subcategory of the taxonomy.",
    "safevid_350k_pairs": "A preference pair: a query with a chosen and a rejected response.",
    "imported_pairs": "A preference pair that others made, from the settings `datasets.imports`.",
    "safevid_350k_release": "A preference pair of the release.",
    "own_style_answers": "The chosen response of a pair in the policy's own words.",
    "queries_without_descriptions": "A query that a teacher model wrote without a description.",
    "pairs_without_descriptions": "A preference pair that was made without a description.",
    "lossy_descriptions": "A description that lacks a detail, for an ablation.",
    "lossy_queries": "A query from a description that lacks a detail.",
    "lossy_pairs": "A preference pair from a description that lacks a detail.",
    "dpo_checkpoint": "A trained checkpoint.",
    "safevidbench_base": "An item of SafeVidBench-Base.",
    "safevidbench_challenge": "An item of SafeVidBench-Challenge.",
    "benchmark_releases": "An item of a release of SafeVidBench.",
    "benchmark_responses": "The response of a system to an item.",
    "benchmark_scores": "The verdict on a response.",
    "judge_validation": "A figure that says how far a judge can be trusted.",
    "video_report": "A video of yours, with what became of it.",
    "scorecard": "A metric of a system on a benchmark.",
    "promotion_decision": "A criterion of a promotion, or the decision itself.",
    "description_fidelity_audit": "A figure of the audit of descriptions.",
    "<describer>_descriptions": "The description of a clip by one describer.",
    "<benchmark>": "An item of an outside benchmark.",
    "<audit>": "A figure of an audit, with its interval if it has one.",
}
# Tables of which there is one for each describer, benchmark or audit.
_FAMILIES = {
    tables.candidate_table: "<describer>",
    tables.benchmark_table: "<benchmark>",
    tables.audit_table: "<audit>",
}

_SETTINGS = """\
# Settings

`python -m docs.reference` writes this page from `safevid_core/settings`.

Settings come from four places, and a later one wins:

1. a profile in `safevid_core/settings/profiles`, which `SAFEVID_PROFILE` names (`pocket` if it is not set);
2. a YAML file of yours, which `SAFEVID_SETTINGS` names;
3. environment variables: `SAFEVID_ALIGNMENT__BETA=0.2` sets `alignment.beta`, and a list is written as JSON;
4. arguments of a command.

Mappings are merged key by key; a list replaces the whole list below it. A folder in `SAFEVID_CLIPS` is added
to `corpus.sources`.

A path in your file is relative to the folder of that file; a path in a variable or an argument is relative to
the working directory. `~` is your home folder, `{root}` the value of `root`, and in a file `{package}` is the
folder of `safevid_core`. The `path` of a model is text, for it may be a hub id: a checkpoint folder there is
relative to the working directory, or below the root if it begins with `{root}/`.

An API key belongs to the server beside which `api_key_env` names it. If your file names another `api_base`,
`served_at` or provider, it must name the key too.

`None` in a description is `null` in YAML. In a key, `*` stands for a name that you choose, or for an item of
a list. A default of `–` means that there is none: the profiles set such a key. The column *in profiles* holds
values that differ from the default; `workstation` and `cluster` stand there only where they differ from
`paper`, and `small` where it differs from `pocket`. *Source* is the paper (arXiv 2505.11926), or ours where
the paper leaves the value open.
"""

_TABLES = """\
# Tables

`python -m docs.reference` writes this page from `safevid_core/contracts/tables.py`.

A stage writes its rows into a table. Every table also has the column `profile`, which the lake adds. The
*key* is unique within the table. The *parent* names the input from which a row was made; without a parent, a
row is made from many inputs. The content hash leaves out the columns that are *not hashed*. A new *version*
makes the table again.
"""


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        key: From the top of the tree, or from the group of a section of its own; `*` is any name or item.
        type: In words, with its bounds.
        default: As YAML would hold it, or a dash.
        profiles: The values in profiles that differ from the default.
        description: What it sets.
        source: `ours`, `paper` or `paper, section 4.1`.
    """

    key: str
    type: str
    default: str
    profiles: str
    description: str
    source: str


@dataclass(frozen=True)
class Section:
    """Settings under one heading."""

    title: str
    description: str
    rows: tuple[Row, ...]


def setting_sections() -> list[Section]:
    """Every setting: the top, each group of the tree, then groups that stand in several places."""
    profiles = {name: load_settings(name) for name in _profile_names()}
    shared = _shared_groups()
    top, sections = [], []
    for name, field in Settings.model_fields.items():
        groups = groups_in(field.annotation)
        if not groups:
            top.append(_row(name, field, profiles, shared))
            continue
        rows = tuple(_rows_of(groups[0], name, profiles, shared))
        sections.append(Section(f"`{name}`", _first_line(groups[0]), rows))
    for group in shared:
        rows = tuple(_row(name, field, {}, shared) for name, field in group.model_fields.items())
        sections.append(Section(group.__name__, _first_line(group), rows))
    return [Section("At the top", "Keys that belong to no group.", tuple(top)), *sections]


def setting_rows() -> list[Row]:
    """Every setting of every section."""
    return [row for section in setting_sections() for row in section.rows]


def settings_page() -> str:
    """docs/settings.md."""
    header = ("key", "type", "default", "in profiles", "what it sets", "source")
    parts = [_SETTINGS]
    for section in setting_sections():
        lines = (
            (f"`{row.key}`", row.type, row.default, row.profiles, row.description, row.source)
            for row in section.rows
        )
        parts.append(f"## {section.title}\n\n{section.description}\n\n{_table(header, lines)}")
    return "\n".join(parts)


def tables_page() -> str:
    """docs/tables.md."""
    comments = _Comments()
    parts = [_TABLES]
    named = [value for value in vars(tables).values() if isinstance(value, Table)]
    for table in [*named, *(make(stem) for make, stem in _FAMILIES.items())]:
        facts = [f"Key: `{table.key}`.", f"Parent: `{table.parent}`." if table.parent else "No parent."]
        hidden = [f"`{name}`" for name in table.volatile if name in table.schema]
        facts += [f"Not hashed: {', '.join(hidden)}."] if hidden else []
        facts.append(f"Version {table.version}.")
        rows = ((f"`{name}`", _type_of_column(kind)) for name, kind in table.schema.items())
        says = [ROWS[table.name], comments.of(table)]
        body = "\n\n".join([*filter(None, says), " ".join(facts), _table(("column", "type"), rows)])
        parts.append(f"## `{table.name}`\n\n{body}")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """The text of each page, by its file."""
    return {FOLDER / "settings.md": settings_page(), FOLDER / "tables.md": tables_page()}


def _profile_names() -> list[str]:
    """Profiles, `paper` before those that extend it."""
    names = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    return sorted(names, key=lambda name: name not in ("pocket", "paper"))


def _shared_groups() -> list[type[BaseModel]]:
    """Groups that stand in more than one place of the tree, such as a video model, by name."""
    places: Counter[type[BaseModel]] = Counter()

    def count(group: type[BaseModel]) -> None:
        for field in group.model_fields.values():
            for inner in groups_in(field.annotation):
                places[inner] += 1
                if places[inner] == 1:
                    count(inner)

    count(Settings)
    return sorted((each for each, times in places.items() if times > 1), key=lambda each: each.__name__)


def _rows_of(
    group: type[BaseModel],
    key: str,
    profiles: dict[str, Settings],
    shared: Sequence[type[BaseModel]],
) -> Iterator[Row]:
    for name, field in group.model_fields.items():
        groups = groups_in(field.annotation)
        if not groups or groups[0] in shared:
            yield _row(f"{key}.{name}", field, profiles, shared)
            continue
        many = get_origin(field.annotation) in (dict, tuple)
        yield from _rows_of(groups[0], f"{key}.{name}.*" if many else f"{key}.{name}", profiles, shared)


def _row(key: str, field: FieldInfo, profiles: dict[str, Settings], shared: Sequence[type[BaseModel]]) -> Row:
    description = field.description or ""
    found = SOURCE.search(description)
    if found is None:
        raise ValueError(f"setting {key}: end its description in `Ours.`, `Paper.` or `Paper, section 4.1.`")
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    shown = "–" if field.is_required() else _value(default)
    unset = "*" in key or key == "profile"
    values = {} if unset else {name: _value(_at(each, key)) for name, each in profiles.items()}
    differing = [
        f"{name}: {value}"
        for name, value in values.items()
        if value != (shown if name in ("pocket", "paper") else values[_NEAREST.get(name, "paper")])
    ]
    kind = _type(field.annotation, shared, _bounds(field))
    return Row(key, kind, shown, "; ".join(differing), description[: found.start()], found[1].lower())


def _at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _value(value: Any) -> str:
    """A value as a cell: models by what names them, long text cut."""
    if isinstance(value, dict) and any(isinstance(each, BaseModel) for each in value.values()):
        return ", ".join(f"`{name}`" for name in value)
    if isinstance(value, list | tuple) and any(isinstance(each, BaseModel) for each in value):
        return ", ".join(map(_value, value))
    if isinstance(value, BaseModel):
        name = getattr(value, "model", None) or getattr(value, "path", None)
        return _value(name) if name else "–"
    plain = isinstance(value, str | Path) and "\n" not in str(value)
    text = str(value) if plain else json.dumps(value, ensure_ascii=False)
    text = text.replace(str(PACKAGE), "{package}")
    return f"`{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}`"


def _type(annotation: Any, shared: Sequence[type[BaseModel]], bounds: str = "") -> str:
    """A type in words, with the bounds of its numbers."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin in (Union, UnionType):
        words = [_type(each, shared, bounds) for each in inner if each is not NoneType]
        return " or ".join(words) + (", or null" if NoneType in inner else "")
    if origin is tuple:
        return f"list of {_type(inner[0], shared)}"
    if origin is dict:
        return f"mapping to {_type(inner[1], shared)}"
    if annotation in shared:
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    words = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    return words[annotation] + bounds


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, sign in signs.items()
        if hasattr(bound, name)
    ]
    return f" {', '.join(found)}" if found else ""


class _Comments:
    """The comments above the assignments of contracts/tables.py."""

    def __init__(self) -> None:
        source = inspect.getsource(tables)
        self._lines = source.splitlines()
        self._said: dict[str, str] = {}
        self._uses: dict[str, list[str]] = {}
        before = ""
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign):
                name, value = ast.unparse(node.targets[0]), node.value
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                name, value = ast.unparse(node.target), node.value
            else:
                before = ""
                continue
            used = [each.id for each in ast.walk(value) if isinstance(each, ast.Name)]
            self._uses[name] = used
            own = self._above(node.lineno)
            # A comment above several copies of tables speaks of all of them.
            self._said[name] = own or (before if "replace" in used else "")
            before = self._said[name]

    def of(self, table: Table) -> str:
        """The comments above a table, then those above what it is made from."""
        names = [name for name, value in vars(tables).items() if value is table]
        return " ".join(map(self._of, names))

    def _of(self, name: str) -> str:
        found = [self._said.get(name, ""), *(self._of(each) for each in self._uses.get(name, ()))]
        return " ".join(dict.fromkeys(filter(None, found)))

    def _above(self, line: int) -> str:
        block: list[str] = []
        for text in reversed(self._lines[: line - 1]):
            if not text.startswith("# "):
                break
            block.insert(0, text.removeprefix("# "))
        return " ".join(block)


def _type_of_column(kind: Any) -> str:
    if isinstance(kind, pl.List):
        return f"list of {_type_of_column(kind.inner)}"
    words = {pl.String: "text", pl.Float64: "number", pl.Float32: "number (32 bits)", pl.Int64: "integer"}
    return next((word for each, word in words.items() if kind == each), "true or false")


def _first_line(group: type[BaseModel]) -> str:
    return (inspect.getdoc(group) or "").splitlines()[0]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def main() -> None:
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
