"""Ids depend on the source and span, or the bytes, and on nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from safevid_core.video.identity import clip_id, clip_id_of_file, file_sha256


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    data = b"x" * 3_000_001
    (tmp_path / "a.bin").write_bytes(data)
    assert file_sha256(tmp_path / "a.bin") == hashlib.sha256(data).hexdigest()


@given(st.text(), st.text(), st.integers(0, 10**7), st.integers(0, 10**7))
def test_ids_are_equal_exactly_where_source_and_span_are(a: str, b: str, start: int, end: int) -> None:
    one, other = clip_id(a, start / 1000, end / 1000), clip_id(b, start / 1000, end / 1000)
    assert (one == other) == (a == b)
    assert clip_id(a, start / 1000, end / 1000 + 0.001) != one


def test_a_file_and_a_source_of_the_same_name_do_not_collide() -> None:
    assert clip_id_of_file("abc") != clip_id("abc", 0, 0)
