"""Images are decoded once, kept at the width they need, and decoded anew when a file changes.

What befalls the disk that they are kept on costs a line or the work of a moment, nothing else.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from medtl.cache import CannotKeepError, cache_root
from medtl.data.manifest import read_table
from medtl.data.pixel_cache import decode_all
from medtl.imaging.decode import decode
from medtl.imaging.pixels import square


def test_grey_images_are_kept_with_one_channel(write_folder):
    table = read_table(str(write_folder({"a": 3, "b": 2})))
    pixels = decode_all(table, 5)
    assert pixels.array.shape == (5, 1, 5, 5)
    assert pixels.array.dtype == np.uint8
    assert pixels.index["mode"].tolist() == ["grey"] * 5
    assert (pixels.index[["width", "height"]] == [7, 6]).all(axis=None)
    for file, kept in zip(table.files(), pixels.array, strict=True):
        assert np.array_equal(kept, square(decode(file.read_bytes()), 5))


def test_one_colour_and_one_deep_image_widen_the_rest(write_folder, write_image):
    root = write_folder({"a": 3, "b": 2})
    write_image(root / "b" / "999.png", 77, (6, 7, 3))
    deep = np.array([[0, 60000], [5, 9]], np.uint16)
    Image.fromarray(deep).save(root / "b" / "998.png")
    table = read_table(str(root))
    pixels = decode_all(table, 4)
    assert pixels.array.shape == (7, 3, 4, 4)
    assert pixels.array.dtype == np.uint16
    assert pixels.index["mode"].tolist() == ["grey"] * 5 + ["deep grey", "colour"]
    first = square(decode(table.files()[0].read_bytes()), 4).astype(int) * 257
    assert np.array_equal(pixels.array[0], np.repeat(first, 3, axis=0))
    last = square(decode(table.files()[6].read_bytes()), 4).astype(int) * 257
    assert np.array_equal(pixels.array[6], last)


def test_the_second_call_opens_no_image(write_folder):
    table = read_table(str(write_folder({"a": 2, "b": 2})))
    first = decode_all(table, 5)
    for file in table.files():
        changed = file.stat()
        file.write_bytes(b"x" * changed.st_size)
        os.utime(file, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    again = decode_all(table, 5)
    assert np.array_equal(first.array, again.array)
    assert first.index.equals(again.index)


def test_a_changed_file_is_read_again(write_folder, write_image):
    table = read_table(str(write_folder({"a": 2, "b": 2})))
    before = decode_all(table, 5)
    write_image(table.files()[0], 99, (6, 7))
    after = decode_all(table, 5)
    assert not np.array_equal(before.array[0], after.array[0])
    assert np.array_equal(before.array[1:], after.array[1:])


def test_unreadable_images_carry_their_reason(write_folder):
    root = write_folder({"a": 2, "b": 2})
    (root / "a" / "000.png").write_bytes(b"")
    pixels = decode_all(read_table(str(root)), 5)
    assert pixels.index["reason"].tolist() == ["the file is empty", "", "", ""]
    assert not pixels.array[0].any()


def test_content_is_that_of_the_pixels_at_full_size(write_folder, write_image):
    root = write_folder({"a": 2, "b": 1})
    Image.open(root / "a" / "000.png").save(root / "b" / "same.tif")
    enlarged = Image.open(root / "a" / "000.png").resize((14, 12), Image.Resampling.NEAREST)
    enlarged.save(root / "b" / "twice.png")
    table = read_table(str(root))
    content = decode_all(table, 5).index["content"].tolist()
    contents = dict(zip(table.frame["path"], content, strict=True))
    assert contents["a/000.png"] == contents["b/same.tif"]
    assert len(set(content)) == len(content) - 1


@pytest.mark.parametrize("name", ["pixels.npy", "index.csv", "checksums.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_what_is_kept_and_was_damaged_is_made_again(write_folder, name, damage):
    table = read_table(str(write_folder({"a": 2, "b": 2})))
    before = decode_all(table, 5).array.tobytes()
    (file,) = cache_root().glob(f"pixels/*/{name}")
    whole = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    elif damage == "truncated":
        os.truncate(file, len(whole) - 2)
    else:
        file.unlink()
    again = decode_all(table, 5)
    assert again.array.tobytes() == before
    assert again.index["reason"].tolist() == [""] * 4
    assert file.read_bytes() == whole


def test_a_full_disk_is_one_line_leaves_nothing_and_is_gone_on_with(
    write_folder, small_disk, monkeypatch
):
    table = read_table(str(write_folder({"a": 30, "b": 30})))
    monkeypatch.setenv("MEDTL_CACHE", str(small_disk(128)))
    with pytest.raises(CannotKeepError, match=r"No space left.*free some disk, or set") as refused:
        decode_all(table, 64)
    assert "\n" not in str(refused.value)
    assert str(cache_root() / "pixels") in str(refused.value)
    assert list((cache_root() / "pixels").iterdir()) == []
    small_disk(1024)
    assert decode_all(table, 64).array.shape == (60, 1, 64, 64)


def test_a_cache_that_cannot_be_written_is_one_line(write_folder, tmp_path, monkeypatch, read_only):
    table = read_table(str(write_folder({"a": 2, "b": 2})))
    file = tmp_path / "file"
    file.write_bytes(b"")
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (file, read_only(empty)):
        monkeypatch.setenv("MEDTL_CACHE", str(place))
        with pytest.raises(CannotKeepError, match="set MEDTL_CACHE to a folder") as refused:
            decode_all(table, 5)
        assert "\n" not in str(refused.value)
        assert str(place) in str(refused.value)
