"""What only a GPU can show: FlexAttention forward and backward, and a training in 16 bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.alignment.job import Job, RunResult
from safevid_core.alignment.throughput import peak_operations
from safevid_core.settings import Settings
from tests.alignment.exactness import (
    EXACT,
    FAMILIES,
    MISTAKES,
    PACKINGS,
    SOME,
    Drawn,
    Subjects,
    few,
    largest_relative,
    largest_relative_of_checkpointed_turns,
)
from tests.alignment.progress_log import logged

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
drawn_pairs = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.lists(st.integers(20, 22), min_size=1, max_size=40),
        st.lists(st.integers(20, 100), min_size=1, max_size=60),
        st.lists(st.integers(101, 200), min_size=1, max_size=60),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def subjects(
    checkpoints: dict[str, Path], release: Any, tmp_path_factory: pytest.TempPathFactory
) -> Subjects:
    return Subjects(checkpoints, release, tmp_path_factory.mktemp("runs"), "cuda")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("family", FAMILIES)
@few
@given(drawn_pairs)
def test_flex_attention_has_the_figures_and_gradients_of_padded_rows(
    subjects: Subjects, family: str, packing: str, drawn: Drawn
) -> None:
    found, true = subjects(family).packed_and_padded(drawn, packing, "flex")
    assert found.largest_difference(true) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(drawn_pairs, st.integers(1, 300))
def test_turns_under_flex_attention_have_the_gradients_of_padded_rows(
    subjects: Subjects, family: str, drawn: Drawn, room: int
) -> None:
    found, true, _ = subjects(family).turns_and_padded(drawn, room, "flex")
    assert largest_relative(found, true) < EXACT


def test_turns_under_gradient_checkpointing(subjects: Subjects) -> None:
    assert largest_relative_of_checkpointed_turns(subjects("llava_next_video"), "flex") < EXACT


@pytest.mark.parametrize("spoil", MISTAKES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_mistake_is_seen(
    subjects: Subjects, family: str, spoil: Callable[[dict[str, Any]], None]
) -> None:
    found, true = subjects(family).packed_and_padded(SOME, "video", "flex", spoil)
    assert found.largest_difference(true) > 100 * EXACT


def test_a_training_in_bfloat16_follows_one_in_float32_on_a_cpu(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    """By the program of its own that the asset starts, two jobs at a time."""
    release.write_parquet(tmp_path / "pairs.parquet")
    base = settings.alignment.base
    bases = {
        "cpu": base,
        "gpu": base.model_copy(update={"device": "cuda", "dtype": "bfloat16"}),
        "gpu-float32": base.model_copy(update={"device": "cuda"}),
    }
    jobs = {}
    for name, each in bases.items():
        update = {"packing": "video", "epochs": 2, "learning_rate": 5e-3, "base": each}
        job = Job(
            tmp_path / name,
            tmp_path / "pairs.parquet",
            0,
            settings.alignment.model_copy(update=update),
            features=tmp_path / f"features-{name}",
            reference=tmp_path / f"reference-{name}.parquet",
        )
        job.folder.mkdir()
        job.write()
        jobs[name] = job
    files = [str(job.file) for job in jobs.values()]
    command = [sys.executable, "-m", "safevid_core.alignment.train", "--workers", "2", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + "".join(
        (job.folder / "output.txt").read_text()[-2000:] for job in jobs.values()
    )
    losses = {
        name: pl.read_ndjson(job.adapter / "training_log.jsonl")["loss"].to_list()
        for name, job in jobs.items()
    }
    assert losses["gpu-float32"] == pytest.approx(losses["cpu"], rel=1e-3)
    assert losses["gpu"] == pytest.approx(losses["cpu"], abs=0.05)
    assert losses["gpu"][-1] < losses["gpu"][0]
    result = RunResult.read(jobs["gpu"].folder)
    assert result is not None
    assert result.pairs == release.height
    entries = [entry for entry in logged(jobs["gpu"]) if "loss" in entry]
    assert all(entry["memory/peak_gb"] > 0 for entry in entries)
    is_known = peak_operations(torch.cuda.get_device_name()) is not None
    assert all(("mfu" in entry) == is_known for entry in entries)
