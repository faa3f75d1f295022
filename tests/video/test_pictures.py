"""Pictures of others: read upright, and refused in one line when they are none."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safevid_core.video.decoding import VideoError
from safevid_core.video.pictures import read_picture
from tests.video.clips_for_tests import SAMPLES, sample_files


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_the_common_formats_are_read(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / f"picture.{suffix}")
    read = read_picture(tmp_path / f"picture.{suffix}")
    assert read.shape == (20, 30, 3)
    assert read.dtype == np.uint8
    assert abs(int(read[10, 4, 0]) - 200) < 20
    assert read[10, 25].max() < 30


def test_a_turned_picture_is_set_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 10))
    exif = picture.getexif()
    exif[0x0112] = 6  # orientation: turned a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (40, 10, 3)


@given(content=st.binary(max_size=200))
def test_what_is_no_picture_gets_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("bad") / "a 'picture'\n.png"
    file.write_bytes(content)
    with pytest.raises(VideoError) as refused:
        read_picture(file)
    assert "\n" not in str(refused.value)
    assert "fetch it again" in str(refused.value)


def test_a_picture_cut_short_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 90).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:800])
    with pytest.raises(VideoError, match="damaged"):
        read_picture(cut)


def test_a_picture_that_unfolds_into_gigabytes_is_refused(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(VideoError, match="10000 x 10000 pixels"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str, suffix: str) -> None:
    alpha = np.zeros((20, 30), np.uint8)
    alpha[5:15, 5:15] = 255
    picture = Image.fromarray(np.dstack([np.zeros((20, 30, 3), np.uint8), alpha])).convert(
        "RGBA" if mode == "P" else mode
    )
    if mode == "P":
        picture = picture.quantize(4)
    file = tmp_path / f"lettering.{suffix}"
    picture.save(file, **({"lossless": True} if suffix == "webp" else {}))
    read = read_picture(file)
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[10, 10].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("mode", "key"), [("1", 0), ("L", 0), ("RGB", (0, 0, 0)), ("I;16", 0)])
def test_a_colour_named_as_transparent_is_white(tmp_path: Path, mode: str, key: object) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "keyed.png", transparency=key)
    assert (read_picture(tmp_path / "keyed.png") == 255).all()


@given(values=st.lists(st.integers(0, 65535), min_size=1, max_size=40))
def test_sixteen_bits_of_grey_become_eight(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    file = tmp_path_factory.getbasetemp() / "deep.png"
    Image.fromarray(np.array([values], np.uint16)).save(file)
    read = read_picture(file)[0].astype(int)
    np.testing.assert_array_equal(read, np.floor(np.array(values)[:, None] / 257 + 0.5).repeat(3, 1))


@pytest.mark.skipif(
    not sample_files("cases/pictures"), reason="the sample cases are not beside this checkout"
)
def test_the_cases_are_legible() -> None:
    ramp = read_picture(SAMPLES / "cases" / "pictures" / "ramp16.png")[0, :, 0].astype(int)
    assert ramp[0] == 0
    assert ramp[-1] == 255
    assert (np.diff(ramp) >= 0).all()
    assert len(set(ramp)) > 200
    lettered = read_picture(SAMPLES / "cases" / "pictures" / "lettering_on_transparent.png")
    assert lettered[0, 0].tolist() == [255, 255, 255]
    assert lettered.min() < 16
