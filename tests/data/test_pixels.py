"""Images are decoded once, kept at the width they need, and decoded anew when a file changes."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from medtl.data.decode import decode
from medtl.data.pixels import decode_all
from medtl.data.square import square
from medtl.data.table import read_table


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
