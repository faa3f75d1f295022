"""The pages for people: every link leads somewhere, and the index leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("docker/*.md")])
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[Path, str]]:
    """Each relative link of a page: the file that it leads to, and the anchor without its sign."""
    return [
        ((page.parent / place).resolve() if place else page, anchor.removeprefix("#"))
        for place, anchor in LINK.findall(page.read_text())
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target.name}#{anchor}"


def test_the_index_leads_to_every_page() -> None:
    index = PROJECT / "docs" / "index.md"
    assert {target for target, _ in links(index)} >= set(PAGES) - {index}


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    sections = (PROJECT / "docs" / "glossary.md").read_text().split("\n## ")[1:]
    for section in sections:
        terms = [term.lower() for term in re.findall(r"^\*\*(.+?)\*\*:", section, re.M)]
        assert terms == sorted(terms)
        assert terms


def test_the_hooks_are_the_linters_of_make() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = " ".join(hook["entry"] for hook in hooks)
    recipe = (PROJECT / "Makefile").read_text().split("\nlint: ")[1].split("\n\n")[0]
    for command in re.findall(r"\$\(BIN\)/([\w-]+(?: (?:format|check))?)", recipe):
        assert f".venv/bin/{command}" in entries
    assert ".ci/run" in (PROJECT / ".github" / "workflows" / "ci.yml").read_text()
