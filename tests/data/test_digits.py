from __future__ import annotations

from medtl.data.manifest import read_table


def test_digits_are_a_data_set_of_ten_classes():
    table = read_table("digits")
    assert (table.name, len(table.frame), len(table.classes)) == ("digits", 1797, 10)
    assert all(file.is_file() for file in table.files()[:20])
