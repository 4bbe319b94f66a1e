from __future__ import annotations

import pytest

from saesweep.experiment.yaml_text import parse_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e4", 1e4),
        ("1.0E4", 1e4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3.5e+2", -350.0),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("16_384", 16384),
        ("1_000.5", 1000.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("YES", "YES"),
        ("1:30", "1:30"),
        ("90M", "90M"),
        ("5%", "5%"),
        ("1_", "1_"),
        ("_1", "_1"),
        ("2001-01-01", "2001-01-01"),
        (".", "."),
        ("-", "-"),
        ("e4", "e4"),
        ("0x", "0x"),
    ],
)
def test_yaml_12_core_scalars(text: str, value: object) -> None:
    parsed = parse_scalar(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 5000])
def test_numbers_that_no_setting_has(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_scalar(text)
