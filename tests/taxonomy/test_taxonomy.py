from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from safevid_core.taxonomy.taxonomy import (
    SAFETY_FILE,
    SCENES_FILE,
    TaxonomyError,
    load_scenes,
    load_taxonomy,
)


def test_the_taxonomy_holds_what_the_method_needs() -> None:
    taxonomy = load_taxonomy()
    ids = {each.id for each in taxonomy.subcategories}
    assert len(ids) >= 28
    assert {"hate_speech", "copyright_infringement", "factuality_hallucination"} <= ids
    assert set(taxonomy.guidelines) == {"helpful", "honest", "harmless"}
    assert len(taxonomy.challenge) == 7
    covered = {each.challenge for each in taxonomy.subcategories if each.challenge}
    assert covered == set(taxonomy.challenge)
    assert all(each.hazard_about_a_video and each.benign_counterpart for each in taxonomy.subcategories)
    assert "own" in taxonomy.source
    assert taxonomy["hate_speech"].principle == "harmless"


def test_scenes_are_thirty_with_prompts() -> None:
    scenes = load_scenes()
    assert len(set(scenes.ids)) == 30
    assert scenes["sky"].prompts == ("a video filmed in the sky", "a short clip of the sky")
    assert "own" in scenes.source


def test_unknown_ids_are_named() -> None:
    with pytest.raises(KeyError, match="no_such"):
        load_taxonomy()["no_such"]
    with pytest.raises(KeyError, match="no_such"):
        load_scenes()["no_such"]


def test_the_hash_follows_the_content_and_not_the_comments(tmp_path: Path) -> None:
    copy = tmp_path / "safety.yaml"
    text = SAFETY_FILE.read_text()
    copy.write_text("# another comment\n" + text)
    assert load_taxonomy(copy).hash == load_taxonomy().hash
    changed = tmp_path / "changed.yaml"
    changed.write_text(text.replace("Setting fire to things", "Setting light to things"))
    assert load_taxonomy(changed).hash != load_taxonomy().hash


def _first_subcategory(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["principles"][2]["dimensions"][0]["subcategories"][0]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda tree: _first_subcategory(tree).update(definition=" "),
            "definition.*arson_and_dangerous_fire",
        ),
        (lambda tree: _first_subcategory(tree).update(id="hate_speech"), "hate_speech.*twice"),
        (lambda tree: _first_subcategory(tree).update(cue=["x"]), "unknown keys cue"),
        (lambda tree: tree["principles"][2]["dimensions"][0].pop("challenge"), "6 categories"),
        (lambda tree: tree["principles"].reverse(), "principles must be"),
        (lambda tree: tree.pop("version"), "version"),
        (lambda tree: tree["principles"][2].update(dimensions=[]), "dimensions"),
    ],
)
def test_a_spoilt_taxonomy_is_refused(tmp_path: Path, spoil: Any, says: str) -> None:
    tree = yaml.safe_load(SAFETY_FILE.read_text())
    spoil(tree)
    file = tmp_path / "safety.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(TaxonomyError, match=says):
        load_taxonomy(file)


@pytest.mark.parametrize("text", ["[", "just text", ""])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "safety.yaml"
    file.write_text(text)
    with pytest.raises(TaxonomyError, match=r"safety\.yaml"):
        load_taxonomy(file)


def test_scenes_that_are_not_thirty_are_refused(tmp_path: Path) -> None:
    tree = yaml.safe_load(SCENES_FILE.read_text())
    tree["scenes"].pop()
    file = tmp_path / "scenes.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(TaxonomyError, match="29 scenes"):
        load_scenes(file)
