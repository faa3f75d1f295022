"""A training through Dagster: the run's log tells how it goes, and the asset shows what became of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from safevid_core.alignment.job import Job
from safevid_core.alignment.train import CURVES, thinned
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import DPO_CHECKPOINT, RELEASE
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.media_places import placed

KEY = dg.MultiPartitionKey({"policy": "pocket", "data_scale": "1"})


@pytest.fixture
def materialized(
    settings: Settings, release: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The asset's metadata, and the lines of the run's log with their levels."""
    release = release.with_columns(chosen=pl.lit("No. " * 3), rejected=pl.lit("No. " * 10))
    lake = Lake(settings.root, settings.profile)
    placed(lake, release.to_dicts())
    stage = StageRows(release.drop("path"), sequence_outcomes(release["pair_id"].to_list(), "ok"))
    lake.commit(RELEASE, "all", stage, "test", {})

    def run(**alignment: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        from safevid_dagster.defs.assets import assets
        from safevid_dagster.defs.resources import SafeVid

        changed = {
            "base": {"path": settings.alignment.base.path},
            "policies": {"pocket": {"seeds": [0]}},
            **{name: getattr(settings.alignment, name) for name in ("lora_rank", "batch_size")},
            **alignment,
        }
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump({"root": str(settings.root), "alignment": changed}))
        monkeypatch.setenv("SAFEVID_SETTINGS", str(file))
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                assets,
                selection=[DPO_CHECKPOINT.name],
                partition_key=KEY,
                resources={"safevid": SafeVid()},
                instance=instance,
            )
            assert result.success
            (event,) = result.get_asset_materialization_events()
            entries = instance.all_logs(result.run_id)
        lines = [(entry.level, entry.user_message) for entry in entries if not entry.is_dagster_event]
        return dict(event.materialization.metadata), lines

    return run


def test_the_log_tells_of_the_training_and_the_asset_warns_and_plots(materialized: Any) -> None:
    """The rejected answers say the chosen ones again and again, so that both fall."""
    metadata, lines = materialized(packing="video", epochs=4, learning_rate=0.02)
    step_lines = [line for _, line in lines if line.startswith("pocket@1 seed 0: step ")]
    assert re.match(
        r"pocket@1 seed 0: step 1 of 24, loss 0\.6931, reward margin .*, accuracy .*%, log-probabilities "
        r"-\d+\.\d chosen -\d+\.\d rejected, [\d,]+ tokens/s, [\d,]+ s left",
        step_lines[0],
    )
    assert step_lines[-1].startswith("pocket@1 seed 0: step 24 of 24, ")
    warned = [line for level, line in lines if level == 30 and "become less likely" in line]
    assert len(warned) == 1
    assert metadata["warnings"].value == f"- {warned[0]}"
    assert metadata["tokens_per_s"].value > 0
    assert metadata["padding_share"].value == 0
    assert metadata["peak_memory_gb"].value > 0
    plot = metadata["training"].value
    assert plot.startswith("![plot](data:image/png;base64,")
    assert len(plot) < 100_000

    again, lines = materialized(packing="video", epochs=4, learning_rate=0.02)
    assert not again["recomputed"].value
    assert lines == []  # nothing was started, so nothing was waited for


def test_a_run_keeps_every_curve(settings: Settings, release: pl.DataFrame, tmp_path: Path) -> None:
    from safevid_core.alignment.train import train

    release.write_parquet(tmp_path / "pairs.parquet")
    job = Job(tmp_path / "run", tmp_path / "pairs.parquet", 0, settings.alignment)
    job.folder.mkdir()
    heard: list[int] = []
    result = train(job, lambda _, figures: heard.append(figures["step"]))
    assert result.curves.keys() == CURVES.keys()
    assert all(len(values) == result.steps == 6 for values in result.curves.values())
    assert heard[:6] == list(range(1, 7))


def test_a_long_curve_is_thinned_to_means() -> None:
    assert thinned([1.0, 2.0, 3.0], points=3) == [1.0, 2.0, 3.0]
    assert thinned([1.0, 3.0, 5.0, 7.0, 9.0], points=3) == [2.0, 6.0, 9.0]
    assert thinned([]) == []
