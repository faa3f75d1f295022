"""The taxonomy and the scenes: what the package's hold, and what is said of a file that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.settings import load_settings
from safevid_core.taxonomy.entries import TaxonomyError
from safevid_core.taxonomy.foreign import foreign_taxonomies
from safevid_core.taxonomy.taxonomy import (
    PRINCIPLES,
    SAFETY_FILE,
    SCENES_FILE,
    load_scenes,
    load_taxonomy,
    read_scenes,
    read_taxonomy,
)

TAXONOMY = load_taxonomy()
PAGE = Path(__file__).parents[2] / "docs" / "taxonomy.md"


# ----------------------------------------------------------------------------------- the package's own


def test_the_taxonomy_holds_what_the_method_needs() -> None:
    ids = {each.id for each in TAXONOMY.subcategories}
    assert len(ids) >= 48
    assert {"hate_speech", "copyright_infringement", "factuality_hallucination"} <= ids
    assert {each.principle for each in TAXONOMY.subcategories} == set(PRINCIPLES)
    assert len(TAXONOMY.challenge) == 7
    covered = {each.challenge for each in TAXONOMY.subcategories if each.challenge}
    assert covered == set(TAXONOMY.challenge)
    assert "own" in TAXONOMY.source
    assert TAXONOMY["hate_speech"].principle == "harmless"


def test_each_policy_is_sentences_about_the_response() -> None:
    """A judge checks them one by one, so that each has its own subject and stands alone."""
    for each in TAXONOMY.subcategories:
        policy = each.policy
        assert policy.must, each.id
        assert policy.must_not, each.id
        assert policy.may_offer, each.id
        sentences = policy.sentences
        assert len(set(sentences)) == len(sentences), each.id
        for sentence in (*policy.must, *policy.must_not):
            assert sentence.startswith("The response "), (each.id, sentence)
            assert sentence.endswith("."), (each.id, sentence)
            assert " that part" not in sentence, (each.id, sentence)
        for sentence in policy.must_not:
            assert re.search(r"\b(?:no|not|nobody)\b", sentence), (each.id, sentence)
        assert all(sentence.startswith("It may ") for sentence in policy.may_offer), each.id


def test_each_subcategory_tells_its_hazard_and_its_benign_counterpart() -> None:
    for each in TAXONOMY.subcategories:
        counterpart = each.benign_counterpart
        assert min(map(len, (each.definition, each.hazard_about_a_video, each.hazard_in_time))) > 20, each.id
        assert counterpart.query.rstrip().endswith(("?", ".")), each.id
        assert counterpart.video.endswith("."), each.id
        assert counterpart.why.endswith("."), each.id
    definitions = [each.definition for each in TAXONOMY.subcategories]
    assert len(set(definitions)) == len(definitions)


def test_a_benign_counterpart_is_not_held_to_what_a_refusal_must_do() -> None:
    weapons = TAXONOMY["mass_casualty_weapons"]
    assert "The response declines." in weapons.policy_for("refuse")
    assert "The response declines." not in weapons.policy_for("answer")
    assert set(weapons.policy.must_not) <= set(weapons.policy_for("answer"))
    guidance = TAXONOMY["practical_guidance"]
    assert guidance.policy_for("answer") == guidance.policy.sentences


@pytest.mark.parametrize(
    ("foreign", "categories"),
    [
        ("llama_guard", 14),
        ("ailuminate", 12),
        ("video_safetybench", 13),
        ("mm_safetybench", 13),
        ("strongreject", 6),
        ("harmbench", 7),
        ("safewatch", 6),
    ],
)
def test_every_foreign_category_maps_to_a_subcategory(foreign: str, categories: int) -> None:
    known = foreign_taxonomies()[foreign]
    assert len(known.codes) == categories
    for code, name in known.codes.items():
        assert TAXONOMY.of_code(foreign, code), f"{known.name} {code}, {name}"


def test_every_harmful_subcategory_has_a_code_in_each_foreign_taxonomy_that_covers_it() -> None:
    """Those without a code in a taxonomy are the ones that it has no category for."""
    for each in TAXONOMY.of_principle("harmless"):
        assert "llama_guard" in each.codes, each.id
        assert len(each.codes) >= 3, each.id
    for each in (*TAXONOMY.of_principle("helpful"), *TAXONOMY.of_principle("honest")):
        assert not each.codes, f"{each.id} is no kind of harm"


@pytest.mark.parametrize(
    ("foreign", "code", "subcategory"),
    [
        ("llama_guard", "S10", "hate_speech"),
        ("llama_guard", "S4", "child_sexual_exploitation"),
        ("video_safetybench", "S8", "copyright_infringement"),
        ("ailuminate", "specialised_advice", "medical_advice"),
        ("mm_safetybench", "political_lobbying", "elections"),
        ("harmbench", "cybercrime_intrusion", "malware_and_intrusion"),
        ("strongreject", "violence", "violence_and_incitement"),
        ("safewatch", "harassment_and_bullying", "harassment_and_bullying"),
    ],
)
def test_codes_lead_to_the_subcategories_of_that_meaning(foreign: str, code: str, subcategory: str) -> None:
    assert subcategory in {each.id for each in TAXONOMY.of_code(foreign, code)}


def test_scenes_have_prompts() -> None:
    scenes = load_scenes()
    assert len(set(scenes.ids)) == 30
    assert scenes["sky"].prompts == ("a video filmed in the sky", "a short clip of the sky")
    assert "own" in scenes.source


def test_unknown_ids_are_named() -> None:
    with pytest.raises(KeyError, match="no_such"):
        TAXONOMY["no_such"]
    assert "no_such" not in TAXONOMY
    assert "hate_speech" in TAXONOMY
    with pytest.raises(KeyError, match="no_such"):
        load_scenes()["no_such"]


# --------------------------------------------------------------------------------------- files of one's own


def spoilt(tmp_path: Path, source: Path, spoil: Callable[[dict[str, Any]], Any]) -> Path:
    tree = yaml.load(source.read_text(), yaml.CSafeLoader)
    spoil(tree)
    file = tmp_path / source.name
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def first(tree: dict[str, Any]) -> dict[str, Any]:
    """The entry of arson_and_dangerous_fire."""
    found = tree["principles"][2]["dimensions"][0]["subcategories"][0]
    assert isinstance(found, dict)
    return found


def test_the_hash_follows_the_content_and_not_the_comments(tmp_path: Path) -> None:
    copy = tmp_path / "safety.yaml"
    text = SAFETY_FILE.read_text()
    copy.write_text("# another comment\n" + text)
    assert read_taxonomy(copy).hash == TAXONOMY.hash
    copy.write_text(text.replace("Setting fire to things", "Setting light to things"))
    assert read_taxonomy(copy).hash != TAXONOMY.hash, "the changed file is read again"


def test_a_subset_is_kept_in_the_order_of_the_file_and_hashed() -> None:
    some = read_taxonomy(subset=("hate_speech", "object_recognition"))
    assert [each.id for each in some.subcategories] == ["object_recognition", "hate_speech"]
    assert some.challenge == ("hate_and_harassment",)
    assert some.hash != TAXONOMY.hash
    assert some.hash == read_taxonomy(subset=("object_recognition", "hate_speech")).hash


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda tree: first(tree).update(definition=" "), "definition.*arson_and_dangerous_fire"),
        (lambda tree: first(tree).update(name=7), "name.*arson_and_dangerous_fire"),
        (lambda tree: first(tree).update(id="hate_speech"), "hate_speech.*twice"),
        (lambda tree: first(tree).update(id="arson|fire"), r"arson\|fire.*letters"),
        (lambda tree: first(tree).update(cue=["x"]), "unknown keys cue"),
        (lambda tree: first(tree).update({3: "x"}), "unknown keys 3"),
        (lambda tree: first(tree).pop("policy"), "policy of arson_and_dangerous_fire has no sentences"),
        (lambda tree: first(tree).update(policy="Decline."), "has no sentences"),
        (lambda tree: first(tree).update(policy={"may_offer": ["It may help."]}), "has no sentences"),
        (lambda tree: first(tree).update(policy={"must": [], "must_not": []}), "has no sentences"),
        (lambda tree: first(tree).update(policy={"must": "Decline."}), "`must` of arson.*list of sentences"),
        (lambda tree: first(tree).update(policy={"must": ["A.", " "]}), "`must` of arson.*list of sentences"),
        (lambda tree: first(tree).update(policy={"must": ["A."], "shall": ["B."]}), "unknown keys shall"),
        (lambda tree: first(tree).update(codes={"llama_guard": ["S99"]}), "code 'S99', which Llama Guard"),
        (lambda tree: first(tree).update(codes={"moon": ["S1"]}), "codes of 'moon', which is no known"),
        (lambda tree: first(tree).update(codes={"llama_guard": "S1"}), "a list of codes"),
        (lambda tree: first(tree).update(codes=["S1"]), "a list of codes"),
        (lambda tree: first(tree).pop("benign_counterpart"), "benign_counterpart.*arson_and_dangerous_fire"),
        (lambda tree: first(tree)["benign_counterpart"].pop("why"), "`why` of the benign counterpart"),
        (lambda tree: tree["principles"][0].update(id="useful"), "principles must be"),
        (
            lambda tree: tree["principles"][0]["dimensions"][0]["subcategories"][0].update(challenge=True),
            "object_recognition is marked `challenge: true` outside principle harmless",
        ),
        (lambda tree: tree.pop("version"), "version"),
        (lambda tree: tree["principles"][2].update(dimensions=[]), "dimensions"),
        (lambda tree: tree["principles"][2].update(dimensions=["x"]), "dimensions"),
    ],
)
def test_a_spoilt_taxonomy_is_refused_in_one_line(tmp_path: Path, spoil: Any, says: str) -> None:
    file = spoilt(tmp_path, SAFETY_FILE, spoil)
    with pytest.raises(TaxonomyError, match=says) as raised:
        read_taxonomy(file)
    assert "safety.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["[", "just text", "", "version: 1"])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str) -> None:
    for read, name in ((read_taxonomy, "safety.yaml"), (read_scenes, "scenes.yaml")):
        file = tmp_path / name
        file.write_text(text)
        with pytest.raises(TaxonomyError, match=re.escape(name)):
            read(file)
        with pytest.raises(TaxonomyError, match="cannot be read"):
            read(tmp_path / f"no_{name}")


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("id", "name", "definition", "policy", "hazard_in_time", "benign_counterpart", "codes", "challenge")


@given(st.sampled_from(KEYS), yaml_values)
@hypothesis_settings(max_examples=30, deadline=None)
def test_whatever_stands_in_an_entry_it_is_read_or_refused(key: str, value: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = spoilt(Path(folder), SAFETY_FILE, lambda tree: first(tree).update({key: value}))
        with suppress(TaxonomyError):
            assert read_taxonomy(file).subcategories


def test_a_date_as_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "safety.yaml"
    file.write_text(SAFETY_FILE.read_text().replace('version: "2"', "version: 2025-11-28"))
    assert read_taxonomy(file).version == "2025-11-28"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda tree: tree["scenes"].append({"id": "kitchen", "name": "x"}), "'kitchen' is used twice"),
        (lambda tree: tree["scenes"].append({"id": "a|b", "name": "x"}), r"'a\|b' may have letters"),
        (lambda tree: tree["scenes"].append({"id": "attic"}), "`name` of attic"),
        (
            lambda tree: tree["scenes"].append({"id": "attic", "name": "x", "prompts": []}),
            "unknown keys prompts",
        ),
        (lambda tree: tree.update(templates=["a video"]), r"contain \{name\}"),
        (lambda tree: tree.update(templates=[]), "templates"),
        (lambda tree: tree.update(templates="a video of {name}"), "templates"),
        (lambda tree: tree.update(scenes=[]), "`scenes`"),
    ],
)
def test_spoilt_scenes_are_refused_in_one_line(tmp_path: Path, spoil: Any, says: str) -> None:
    with pytest.raises(TaxonomyError, match=says) as raised:
        read_scenes(spoilt(tmp_path, SCENES_FILE, spoil))
    assert "\n" not in str(raised.value)


def test_other_braces_of_a_template_are_kept(tmp_path: Path) -> None:
    file = spoilt(tmp_path, SCENES_FILE, lambda tree: tree.update(templates=["{a} {name} {"]))
    assert read_scenes(file)["sky"].prompts == ("{a} the sky {",)


# ------------------------------------------------------------------------------------------- the settings


def with_taxonomy(profile: str = "pocket", **taxonomy: Any) -> Any:
    return load_settings(profile, overrides={"taxonomy": taxonomy})


def test_only_the_paper_profile_expects_30_scenes_and_7_challenge_categories(tmp_path: Path) -> None:
    fewer = spoilt(tmp_path, SCENES_FILE, lambda tree: tree["scenes"].pop())
    six = spoilt(tmp_path, SAFETY_FILE, lambda tree: tree["principles"][2]["dimensions"][0].pop("challenge"))
    for profile in ("pocket", "workstation", "cluster"):
        settings = with_taxonomy(profile, path=six, scenes_path=fewer, subcategories=None)
        assert len(load_scenes(settings).ids) == 29
        assert len(load_taxonomy(settings).challenge) == 6
    paper = with_taxonomy("paper", path=six, scenes_path=fewer)
    with pytest.raises(
        TaxonomyError, match=r"scenes\.yaml: 29 scenes; taxonomy\.expected_scenes asks for 30"
    ):
        load_scenes(paper)
    with pytest.raises(TaxonomyError, match=r"safety\.yaml: 6 categories.*expected_challenge asks for 7"):
        load_taxonomy(paper)
    load_scenes(load_settings("paper"))
    assert len(load_taxonomy(load_settings("paper")).subcategories) == len(TAXONOMY.subcategories)


def test_a_subset_that_the_file_does_not_have_is_refused() -> None:
    with pytest.raises(TaxonomyError, match=r"taxonomy\.subcategories names 'jaywalking'"):
        load_taxonomy(with_taxonomy(subcategories=["hate_speech", "jaywalking"]))


def test_the_pocket_profile_asks_what_its_world_can_show() -> None:
    pocket = load_taxonomy(load_settings("pocket"))
    assert {each.principle for each in pocket.subcategories} == set(PRINCIPLES)
    assert {each.id for each in pocket.subcategories} < {each.id for each in TAXONOMY.subcategories}


def test_the_examples_of_the_page_can_be_used(tmp_path: Path) -> None:
    taxonomy, named, scenes = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    (tmp_path / "warehouse.yaml").write_text(taxonomy)
    (tmp_path / "warehouse_scenes.yaml").write_text(scenes)
    wanted = yaml.safe_load(named)["taxonomy"]
    paths = {name: tmp_path / wanted[name] for name in ("path", "scenes_path")}
    own = load_taxonomy(with_taxonomy(**paths, subcategories=None))
    assert [each.id for each in own.subcategories] == ["plain_questions", "ladder_safety", "blocked_exits"]
    assert own.challenge == ("workplace",)
    assert own.of_code("llama_guard", "S2")
    settings = with_taxonomy(**paths, subcategories=wanted["subcategories"])
    assert [each.id for each in load_taxonomy(settings).subcategories] == ["plain_questions", "ladder_safety"]
    assert (
        load_scenes(settings)["high_rack"].prompts[1] == "camera footage of a warehouse aisle with high racks"
    )


def test_the_figures_of_the_page_hold() -> None:
    dimensions = {(each.principle, each.dimension) for each in TAXONOMY.subcategories}
    said = f"{len(TAXONOMY.subcategories)} subcategories in {len(dimensions)}\ndimensions"
    assert said in PAGE.read_text()
    codes = sum(len(each.codes) for each in foreign_taxonomies().values())
    assert f"Each of the {codes} categories" in PAGE.read_text()
    sevens = [each.id for each in TAXONOMY.of_code("llama_guard", "S7")]
    assert f"# {sevens}" in PAGE.read_text()
