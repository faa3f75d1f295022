"""Kappa and alpha against plain loops, known figures and, where installed, other libraries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.statistics.agreement import (
    LabelError,
    cohen_kappa,
    confusion,
    krippendorff_alpha,
    read_labels,
    share_agreeing,
)

labels = st.sampled_from("abc")
pairs = st.lists(st.tuples(labels, labels), min_size=1, max_size=40)
ratings = st.lists(st.lists(labels | st.none(), min_size=1, max_size=5), min_size=1, max_size=20)


def plain_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    n = len(first)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / n
    chance = sum(first.count(label) * second.count(label) for label in set(first)) / n**2
    return None if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)


def plain_alpha(units: Sequence[Sequence[str | None]]) -> float | None:
    """Krippendorff's definition, pair by pair."""
    rated = [[label for label in unit if label is not None] for unit in units]
    rated = [unit for unit in rated if len(unit) > 1]
    values = [label for unit in rated for label in unit]
    if len(values) < 2:
        return None
    inside = sum(
        sum(one != other for one, other in itertools.permutations(unit, 2)) / (len(unit) - 1)
        for unit in rated
    )
    across = sum(one != other for one, other in itertools.permutations(values, 2)) / (len(values) - 1)
    return None if across == 0 else 1 - inside / across


@settings(deadline=None)
@given(pairs)
def test_kappa_is_the_textbooks(units: list[tuple[str, str]]) -> None:
    first, second = ([unit[side] for unit in units] for side in (0, 1))
    found = cohen_kappa(first, second, draws=50)
    wanted = plain_kappa(first, second)
    assert found.n == len(units)
    assert found.value == (None if wanted is None else pytest.approx(wanted))
    assert cohen_kappa(second, first, draws=50).value == found.value
    if found.value is not None:
        assert found.ci_low is not None
        assert found.ci_high is not None
        assert found.ci_low <= found.value <= found.ci_high <= 1 + 1e-9


@settings(deadline=None)
@given(ratings, st.randoms())
def test_alpha_is_krippendorffs_and_raters_have_no_order(units: list[list[str | None]], random) -> None:  # type: ignore[no-untyped-def]
    found = krippendorff_alpha(units, draws=50)
    wanted = plain_alpha(units)
    assert found.value == (None if wanted is None else pytest.approx(wanted, abs=1e-9))
    shuffled = [random.sample(unit, len(unit)) for unit in random.sample(units, len(units))]
    again = krippendorff_alpha(shuffled, draws=50).value
    assert again == (None if found.value is None else pytest.approx(found.value, abs=1e-9))


def test_alpha_of_the_published_example() -> None:
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: 0.743."""
    observers = ("1233212141.2...", "12332241411531.", ".3332 2341251.3", "1233241412513..")
    del observers
    a = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None]
    b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3]
    c = [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None]
    d = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]
    found = krippendorff_alpha(list(zip(a, b, c, d, strict=True)), draws=200)
    assert found.value == pytest.approx(0.743, abs=5e-4)


def test_kappa_of_a_textbook_table() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, by chance 0.5.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second).value == pytest.approx(0.4)
    assert confusion(first, second)["no", "yes"] == 10
    agreement = share_agreeing(first, second)
    assert agreement.value == 0.7
    assert (agreement.ci_low or 0) < 0.7 < (agreement.ci_high or 1)


def test_full_agreement_still_has_an_interval() -> None:
    for n, least in ((10, 0.1), (400, 0.95)):
        raters = ["a", "b"] * (n // 2)
        for figure in (
            cohen_kappa(raters, raters),
            krippendorff_alpha(list(zip(raters, raters, strict=True))),
        ):
            assert figure.value == pytest.approx(1.0)
            assert figure.ci_low is not None
            assert least < figure.ci_low < 1.0


def test_alpha_of_clusters_has_the_same_value_and_an_interval_of_fewer_units() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.5
    # A cluster of ten units is read right or wrong as a whole.
    wrong = np.repeat(rng.random(20) < 0.2, 10)
    units = list(zip(labels.tolist(), (labels ^ wrong).tolist(), strict=True))
    alone = krippendorff_alpha(units)
    clustered = krippendorff_alpha(units, clusters=[number // 10 for number in range(200)])
    assert clustered.value == alone.value
    widths = [(figure.ci_high or 0) - (figure.ci_low or 0) for figure in (alone, clustered)]
    assert widths[1] > 2 * widths[0]


def test_the_interval_of_alpha_over_clusters_covers_it() -> None:
    """400 sets of 60 clusters of five units; a cluster is read with an error of 0.05 or 0.25."""
    rng, held = np.random.default_rng(1), 0
    truth = 1 - 2 * 0.15  # labels in equal numbers, read wrong 15% of the time
    for number in range(400):
        labels = rng.random(300) < 0.5
        wrong = rng.random(300) < np.repeat(rng.choice([0.05, 0.25], 60), 5)
        found = krippendorff_alpha(
            list(zip(labels.tolist(), (labels ^ wrong).tolist(), strict=True)),
            draws=400,
            seed=number,
            clusters=np.repeat(np.arange(60), 5).tolist(),
        )
        held += (found.ci_low or 0) <= truth <= (found.ci_high or 0)
    assert 0.91 <= held / 400 <= 0.98


def test_full_agreement_of_clusters_counts_each_cluster_once() -> None:
    raters = [("a", "a"), ("b", "b")] * 50
    one = krippendorff_alpha(raters, clusters=["video"] * 100)
    many = krippendorff_alpha(raters, clusters=list(range(100)))
    assert one.value == many.value == pytest.approx(1.0)
    assert (one.ci_low or 0) < 0 < 0.9 < (many.ci_low or 0)


def test_what_is_not_defined_is_none() -> None:
    assert cohen_kappa([], []).value is None
    assert cohen_kappa(["a"] * 5, ["a"] * 5).value is None
    assert krippendorff_alpha([["a"], ["b", None]]).value is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]).value is None


def test_the_interval_covers_the_truth() -> None:
    """Two raters of a known kappa, 300 sets of 150 units: a 95% interval holds it in 91 to 98 of 100."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        truth = rng.random(150) < 0.5
        # Each rater errs on one unit in ten: observed agreement 0.82, by chance 0.5, kappa 0.64.
        one, other = (np.where(rng.random(150) < 0.1, ~truth, truth).tolist() for _ in range(2))
        figure = cohen_kappa(one, other, draws=400)
        assert figure.ci_low is not None
        assert figure.ci_high is not None
        held += figure.ci_low <= 0.64 <= figure.ci_high
    assert 0.91 <= held / 300 <= 0.98


def test_against_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 3, 200).tolist() for _ in range(2))
    assert cohen_kappa(one, other).value == pytest.approx(metrics.cohen_kappa_score(one, other))


def test_against_statsmodels() -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    rng = np.random.default_rng(2)
    one, other = (rng.integers(0, 3, 200) for _ in range(2))
    table = np.zeros((3, 3))
    np.add.at(table, (one, other), 1)
    wanted = rater.cohens_kappa(table).kappa
    assert cohen_kappa(one.tolist(), other.tolist()).value == pytest.approx(wanted)


# ------------------------------------------------------------------------------------- labels of people


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_are_read_line_by_line_and_bad_lines_named(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeffresponse_id,query,answer,label,annotator,category,system,asks,expectation,criteria\n"
        "r1,,,success,ann,arson,,,,\n"
        "r1,,,UNSAFE,bob,,,,,\n"
        ',"How, then?","First\ntake it",0,ann,,model-a,help,refuse,"It declines.\n\n It gives no steps. "\n'
        ",What?,,no,,,,,,\n"
        "r2,,,perhaps,ann,,,,,\n"
        ",,text,1,ann,,,,,\n"
        ",What?,text,1,ann,,,,enable,\n"
        ",What?,text,1,ann,,,order,,\n",
    )
    found, unusable = read_labels(path)
    assert [(label.unit, label.success, label.annotator) for label in found[:2]] == [
        ("r1", True, "ann"),
        ("r1", False, "bob"),
    ]
    assert found[2].texts is not None
    assert found[2].texts.row["text"] == "First\ntake it"
    assert found[2].texts.row["criteria"] == ["It declines.", "It gives no steps."]
    assert (found[2].system, found[2].texts.expected) == ("model-a", "refuse")
    assert found[3].texts is not None
    assert (found[3].texts.text, found[3].texts.expected) == ("", "refuse")
    assert found[3].annotator == "unnamed"
    assert unusable[9].startswith("label 'perhaps' is unknown; known: 1, right, safe")
    assert unusable[10] == "names no response_id, and lacks query"
    assert unusable[11] == "expectation 'enable' is unknown; known: refuse, rebut, correct, care, answer"
    assert unusable[12].startswith("asks 'order' is unknown; known: help,")
    assert all("\n" not in why for why in unusable.values())


def test_a_labelled_text_is_a_key_whatever_its_criteria(tmp_path: Path) -> None:
    """Two labels of one text are of one unit; other criteria, or another system, make another unit."""
    path = written(
        tmp_path,
        "query,answer,label,annotator,system,criteria\n"
        'q,a,1,ann,s,"One.\nTwo."\n'
        'q,a,0,bob,s,"One.\nTwo."\n'
        "q,a,1,ann,s,One.\n"
        'q,a,1,ann,t,"One.\nTwo."\n',
    )
    found, unusable = read_labels(path)
    assert not unusable
    assert found[0].unit == found[1].unit
    assert len({label.unit for label in found}) == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("response_id,annotator\nr1,ann\n", "lacks label"),
        ("query,label\nq,1\n", "lacks answer"),
        ("", "lacks label"),
        ('response_id,label\n"r1,1\n', "cannot be read as CSV"),
        ("response_id,label\nr1,\x00\n", "neither|cannot be read"),
    ],
)
def test_a_file_that_is_no_table_of_labels_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)
    if "\x00" in text:
        _, unusable = read_labels(path)
        assert len(unusable) == 1
        return
    with pytest.raises(LabelError, match=named):
        read_labels(path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"response_id,label\n\xff\xfe,1\n")
    with pytest.raises(LabelError, match="save it as UTF-8"):
        read_labels(path)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_text(
            f"response_id,label,annotator\n{text}\n", encoding="utf-8", errors="ignore", newline=""
        )
        try:
            found, unusable = read_labels(path)
        except LabelError as error:
            refused = str(error)
        else:
            refused = f"{path}: nothing"
            assert not {label.line for label in found} & set(unusable)
        assert str(path) in refused
