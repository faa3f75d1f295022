"""Vision features and the reference are computed once, and what is read back is what was computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from safevid_core.alignment.clips import FeatureStore
from safevid_core.alignment.encoding import EncodedPair, encode_pairs
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job
from safevid_core.alignment.reference import read_reference, write_reference
from safevid_core.alignment.train import prepare
from safevid_core.alignment.trainer import VideoDPOTrainer
from safevid_core.alignment.vision_features import FeatureFolder, StoredFeatures
from safevid_core.models.video_chat import load_local
from safevid_core.settings import Settings
from tests.alignment.exactness import AlignmentOf

FAMILIES = ("llava_next_video", "qwen2_5_vl", "internvl")


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_features_are_the_towers_to_float16_and_no_clip_is_encoded_twice(
    family: str,
    alignment_of: AlignmentOf,
    release: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alignment = alignment_of(family)
    model, processor = load_local(alignment.base)
    memory = FeatureStore(model, family)
    folder = FeatureFolder(tmp_path / "features")
    pairs = encode_pairs(release, alignment, processor, memory).pairs
    names = {pair.clip for pair in pairs}
    stored = StoredFeatures(model, family, folder, clips=len(names))
    assert encode_pairs(release, alignment, processor, stored).pairs == pairs
    assert {file.stem for file in folder.path.glob("*.npy")} == names
    size = sum(folder.read(name).nbytes for name in names)
    output = capsys.readouterr().out
    assert f"{len(names)} clips take {size // 1000 if size >= 10_000 else size} " in output
    assert sum(file.stat().st_size for file in folder.path.glob("*.npy")) <= size + 128 * len(names)

    clips = [pairs[0].clip, pairs[3].clip]
    for one, other in zip(kept(memory, clips), kept(stored, clips), strict=True):
        assert one.shape == other.shape
        assert torch.equal(one.half().float(), other)

    def encoded_again(*_: Any) -> None:
        raise AssertionError("a stored clip was encoded again")

    monkeypatch.setattr(FeatureStore, "encode", encoded_again)
    later = StoredFeatures(model, family, folder, clips=len(names))
    encode_pairs(release, alignment, processor, later)
    assert all(map(torch.equal, kept(later, clips), kept(stored, clips)))


def kept(store: FeatureStore, clips: list[str]) -> list[torch.Tensor]:
    outputs = store.batch(clips)["mm_encoder_outputs"]
    (features,) = outputs.values()
    return list(features.pooler_output)


def test_features_are_mapped_and_not_read_into_memory(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path)
    folder.write("clip", np.ones((2, 3, 4), np.float32))
    assert isinstance(folder.read("clip"), np.memmap)
    assert folder.read("clip").dtype == np.float16


def test_a_feature_beyond_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"clip loud: a vision feature of 7e\+04 is too large for float"):
        FeatureFolder(tmp_path).write("loud", np.array([1.0, 7e4], np.float32))
    assert not list(tmp_path.iterdir())


def test_features_that_do_not_fit_the_disk_are_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"features of 12377 clips take .* are free"):
        FeatureFolder(tmp_path).make_room(12377, 10**12)


def test_a_reference_is_read_back_for_its_own_pairs_alone(tmp_path: Path) -> None:
    pair = EncodedPair("pair", "clip", [1, 2], None, [3], [4])
    file = tmp_path / "reference.parquet"
    assert not read_reference(file, [pair])
    pair.reference = (-1.5, 0.1 + 0.2)
    write_reference(file, [pair])
    same = EncodedPair("pair", "clip", [1, 2], None, [3], [4])
    assert read_reference(file, [same])
    assert same.reference == pair.reference
    for other in (
        EncodedPair("pair", "another", [1, 2], None, [3], [4]),
        EncodedPair("pair", "clip", [1, 2], None, [4], [3]),
        EncodedPair("pair", "clip", [1], None, [2, 3], [4]),
    ):
        assert not read_reference(file, [same, other])
        assert other.reference is None


@pytest.mark.parametrize("packing", ["none", "video"])
def test_a_smaller_scale_takes_the_reference_of_the_largest(
    packing: str, settings: Settings, release: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run computes it for all pairs, whichever scale it has; the others do without a pass."""
    alignment = settings.alignment.model_copy(update={"packing": packing})
    release.write_parquet(tmp_path / "all.parquet")
    release[3:9].write_parquet(tmp_path / "some.parquet")

    def trainer_over(name: str) -> VideoDPOTrainer:
        job = Job(
            tmp_path / name,
            tmp_path / f"{name}.parquet",
            0,
            alignment,
            features=tmp_path / "features",
            reference=tmp_path / "reference.parquet",
            reference_pairs=tmp_path / "all.parquet",
        )
        job.folder.mkdir()
        return prepare(job).trainer

    some = trainer_over("some").data_collator.pairs

    def computed_again(*_: Any) -> None:
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr(VideoDPOTrainer, "store_reference", computed_again)
    everyone = {pair.pair_id: pair for pair in trainer_over("all").data_collator.pairs}
    assert len(everyone) == 24
    assert [pair.reference for pair in some] == [everyone[pair.pair_id].reference for pair in some]
