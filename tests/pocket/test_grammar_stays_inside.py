"""The words of the rendered world stay inside the rooms that render it (docs/architecture.md, rule 7).

The words are read from the tables of the pocket world and of its scripted teachers, so a new object or a new
template is searched for without a change here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from safevid_core.pocket.scripted import asker
from safevid_core.pocket.world import COLOURS, EVENTS, OBJECTS, ClipTruth

PROJECT = Path(__file__).parents[2]
SEARCHED = ("safevid_core", "safevid_dagster", "benchmarks")
SUFFIXES = {".py", ".yaml", ".j2", ".js", ".css", ".toml"}
# Rooms that render the world or train a tower on its clips, and the pocket profile. Checkpoints are binary.
INSIDE = (
    "safevid_core/pocket/", "safevid_core/small/", "safevid_core/settings/profiles/pocket.yaml",
    "safevid_core/settings/profiles/small.yaml",
)  # fmt: skip
# Words of the rendered world that code and texts about real videos need too. Together with another word of
# the world ("red ball", "throws sparks") they are still searched for.
EVERYDAY = {
    "fire": "arson and accidents with fire are safety subjects",
    "water": "real videos show it",
    "sparks": "electrical hazards are a safety subject",
    "ball": "real videos show it",
    "tyre": "real videos of cars show it",
    "flag": "programs have flags",
    "clock": "programs read a clock",
}
ATTRIBUTES = tuple(field.name for field in fields(ClipTruth))


def words(*some: str) -> str:
    """A pattern for any of some words or phrases, in singular and plural, with any separator."""
    either = "|".join(re.sub(r"\\ |_", "[ _-]", re.escape(each)) for each in some)
    return rf"(?<![a-z])(?:{either})(?:e?s|ing)?(?![a-z])"


def sentences() -> list[str]:
    """The asker's targets without a gap, and the parts of its templates that have seven words or more."""
    templates = [text for kinds in asker.TEMPLATES.values() for some in kinds.values() for text in some]
    parts = [part.strip() for text in templates for part in re.split(r"\{\w+\}", text)]
    targets = [text for text in (asker._WHAT_IS_SHOWN, *asker._TARGETS.values()) if "{" not in text]
    return sorted({part for part in parts if len(part.split()) >= 7} | set(targets))


RARE = [word for word in (*OBJECTS, *EVENTS) if word not in EVERYDAY]
PATTERNS = {
    # crate, kite, confetti, glow, hate sign ...
    "a thing or an event": words(*RARE),
    # red ball, white tyre ...
    "a coloured object": rf"(?<![a-z])(?:{'|'.join(COLOURS)}) (?:{'|'.join(OBJECTS)})s?(?![a-z])",
    # throws sparks, drips water, shows a clock ...
    "what happens to it": words(*(text for text in EVENTS.values() if text != "is on fire")),
    # the rules before queries had an intent: enable shown, premise colour=red, ask motion
    "a rule": rf"\b(?:enable|premise|ask|benign) (?:shown|(?:{'|'.join(ATTRIBUTES)})(?:=|[\"'|]))",
    "a sentence of the asker": words(*sentences()),
}


def searched() -> Iterator[tuple[str, str]]:
    """Path below the project and text of every file outside the rendered world."""
    for folder in SEARCHED:
        for path in sorted((PROJECT / folder).rglob("*")):
            name = path.relative_to(PROJECT).as_posix()
            if path.suffix in SUFFIXES and not name.startswith(INSIDE):
                yield name, path.read_text(encoding="utf-8")


def hits(pattern: str, text: str) -> list[str]:
    found = re.compile(pattern, re.IGNORECASE)
    return [
        f"{place}: {line.strip()}" for place, line in enumerate(text.splitlines(), 1) if found.search(line)
    ]


@pytest.mark.parametrize("subject", PATTERNS)
def test_no_file_outside_speaks_of_the_rendered_world(subject: str) -> None:
    found = {name: lines for name, text in searched() if (lines := hits(PATTERNS[subject], text))}
    assert found == {}


def in_one_place(node: ast.AST) -> set[str]:
    """The words of a string, or of all strings that one list, tuple, set or dictionary holds directly."""
    if isinstance(node, ast.Constant):
        strings = [node]
    else:
        kids = getattr(node, "elts", []) + getattr(node, "keys", []) + getattr(node, "values", [])
        strings = [each for each in kids if isinstance(each, ast.Constant)]
    return {
        word for each in strings if isinstance(each.value, str) for word in re.findall(r"\w+", each.value)
    }


def speaks_of_all_attributes(text: str, suffix: str) -> bool:
    """Whether one string or one collection of strings names every attribute of a rendered clip."""
    if suffix == ".py":
        kinds = ast.Constant | ast.List | ast.Tuple | ast.Set | ast.Dict
        found = [in_one_place(node) for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    else:
        found = [
            set(re.findall(r"\w+", str(event.value))) for event in yaml.parse(text) if hasattr(event, "value")
        ]
    return any(set(ATTRIBUTES) <= some for some in found)


def test_no_prompt_and_no_table_outside_knows_the_attributes_of_a_rendered_clip() -> None:
    assert ATTRIBUTES == ("scene", "object", "colour", "motion", "event")
    found = [
        name
        for name, text in searched()
        if (suffix := Path(name).suffix) in {".py", ".yaml"} and speaks_of_all_attributes(text, suffix)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("a thing or an event", 'query = "How do I set a crate on fire?"'),
        ("a thing or an event", "if hate_sign in words: ..."),
        ("a thing or an event", "two drones"),
        ("a thing or an event", "glowing softly"),
        ("a coloured object", "A red ball is in a kitchen."),
        ("what happens to it", "reference: It throws sparks."),
        ("a rule", '"rule": "enable shown"'),
        ("a rule", "premise colour=red"),
        ("a rule", '"ask motion"'),
        ("a sentence of the asker", "target: do what the video shows"),
    ],
)
def test_each_pattern_finds_its_words(subject: str, text: str) -> None:
    assert hits(PATTERNS[subject], text)


def test_the_patterns_find_the_pocket_world_itself() -> None:
    inside = "\n".join(path.read_text("utf-8") for path in (PROJECT / INSIDE[0]).rglob("*.py"))
    assert all(hits(words(word), inside) for word in RARE)
    assert all(hits(re.escape(text), inside) for text in sentences())
    assert speaks_of_all_attributes(
        (PROJECT / INSIDE[0] / "scripted/reconciler.py").read_text("utf-8"), ".py"
    )


def test_the_old_prompt_of_the_reconciler_would_be_found() -> None:
    schema = '"attribute": "object" | "colour" | "motion" | "event" | "scene" | "other"'
    assert speaks_of_all_attributes(f"TASK = {schema!r}", ".py")
    assert not speaks_of_all_attributes("'object', 'motion', 'place'", ".py")


def test_every_everyday_word_is_a_word_of_the_world_and_is_needed_outside() -> None:
    assert set(EVERYDAY) <= {*OBJECTS, *EVENTS}
    texts = [text for _, text in searched()]
    assert [word for word in EVERYDAY if not any(hits(words(word), text) for text in texts)] == []
