"""Tables of label values and colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.errors import UsageError
from edgeseg.label_tables import read_label_table

NAMES = ("sky", "road", "car")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"7": 0, "8": "road", "255": null, "#0A0b0C": "car", "9": "void"}'),
        ("a.csv", "value,class\n7,0\n8,road\n255,void\n#0a0b0c,car\n9,Void\n"),
        ("a.txt", "\ufeff7, sky\r\n8, 1\r\n255, ignore\r\n\r\n#0A0B0C, 2\r\n9,none"),
    ],
)
def test_json_and_csv(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    values, colors = read_label_table(tmp_path / name, NAMES)
    assert values == {7: 0, 8: 1, 255: None, 9: None}
    assert colors == {(10, 11, 12): 2}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1]", "is no JSON object"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "{}", "names no value"),
        ("a.json", '{"1": 3}', r"names the class '3'; the network has 0\.\.2 \(sky, road, car\), and void"),
        ("a.json", '{"1": true}', "names the class 'True'"),
        ("a.json", '{"1": 0, "1": 1}', "names the value '1' twice"),
        ("a.csv", "1,0,2", "a line of 3 columns"),
        ("a.csv", "1,-1", "names the class '-1'"),
        ("a.csv", "70000,0", "names the value '70000'"),
        ("a.csv", "#12345,0", "names the value '#12345'"),
        ("a.csv", "1,", "names the class ''"),
        ("a.csv", "", "names no value"),
    ],
)
def test_tables_that_are_not_right(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_label_table(tmp_path / name, NAMES)


def test_a_table_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_label_table(tmp_path / "nothing.csv", NAMES)
