"""Fields of settings: description, validation, quoting of entries."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medtl.errors import ParameterError

# As in CSV (RFC 4180), a quoted entry may contain any character, and a quotation mark within it is
# doubled.


SIGNS = ",=|"
"""Separators of entries in any parameter."""


def fields(name: str, text: str, signs: str) -> Iterator[tuple[str, str]]:
    """Yields the unquoted entries of a text, each with the separator after it.

    The separator after the last entry is ''. Spaces around an entry are ignored.

    >>> list(fields("positive", 'a, "b, c"', ","))
    [('a', ','), ('b, c', '')]

    Args:
        name: name of the parameter, for messages.
        text: its value.
        signs: the separators, one character each.

    Raises:
        ParameterError: unclosed quotation marks, or text beside them.
    """
    entry = re.compile(
        rf'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?!")(?P<plain>[^{signs}]*))\s*(?P<sign>[{signs}]|\Z)'
    )
    place, sign = 0, signs
    while sign:
        found = entry.match(text, place)
        if found is None:
            raise ParameterError(
                name,
                text,
                'quotation marks around a whole entry, as in a CSV file: "A, B"; '
                "one within them is written twice",
            )
        place, sign = found.end(), found["sign"]
        quoted = found["quoted"]
        yield (found["plain"].strip() if quoted is None else quoted.replace('""', '"')), sign


def quoted(entry: str) -> str:
    """Quotes an entry that contains a separator or a quotation mark.

    >>> quoted("stage=0"), quoted("normal")
    ('"stage=0"', 'normal')
    """
    if any(sign in entry for sign in f'{SIGNS}"') or entry != entry.strip():
        return '"{}"'.format(entry.replace('"', '""'))
    return entry


_REGISTERED_NAME = re.compile(r"(?! )[^/:@?'\"\x00-\x1f]{1,250}(?<! )")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


DATA, NETWORK, TRAINING, RECORD = "data", "network", "training", "record"
"""Parts of a result that a parameter decides: images, labels and splits; the network and its first
weights; training, search and scores; where the result is kept, and its promotion."""


def option(
    default: Any,
    meaning: str,
    *,
    changes_result: bool,
    decides: str = TRAINING,
    place: bool = False,
    added_later: bool = False,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declares a settings field.

    Args:
        default: value where none is given.
        meaning: help line.
        changes_result: false if work that was begun with one value continues with another one, as
            with durations, devices and permissions. Such a field is in no key.
        decides: the part of the result, DATA, NETWORK, TRAINING or RECORD.
        place: true if the value may be a path, which keys hold in its absolute form.
        added_later: true if keys of an earlier release lack the field: they leave it out at its
            default.
        choices: allowed values.
        low: smallest allowed number.
        high: largest allowed number.
    """
    metadata = {
        "meaning": meaning,
        "changes_result": changes_result,
        "decides": decides,
        "place": place,
        "added_later": added_later,
        "choices": choices,
        "low": low,
        "high": high,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Base of every entry point's settings: validates each value against its field."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
            if choices is not None and value not in choices:
                raise ParameterError(field.name, value, f"one of {', '.join(choices)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ParameterError(field.name, value, "a finite number")
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise ParameterError(field.name, value, _range(low, high))


def key_values(
    settings: Settings, *parts: str, declared_by: type[Settings] | None = None
) -> dict[str, object]:
    """Returns the values that a key holds: those of fields that change a result.

    Args:
        settings: of any entry point.
        parts: only fields that decide one of these parts; all without any.
        declared_by: only fields of this class, which `settings` is derived from.
    """
    names = {field.name for field in dataclasses.fields(declared_by or settings)}
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name in names
        and field.metadata["changes_result"]
        and (not parts or field.metadata["decides"] in parts)
        and not (field.metadata["added_later"] and getattr(settings, field.name) == field.default)
    }


def place_names(settings: Settings) -> frozenset[str]:
    """Returns the fields whose value may be a path."""
    return frozenset(
        field.name for field in dataclasses.fields(settings) if field.metadata["place"]
    )


def comma_list(name: str, value: str) -> tuple[str, ...]:
    """Parses a comma list into unique entries, in order; refuses an empty list.

    An entry with a comma is quoted (see `medtl.settings.fields`).
    """
    entries = tuple(dict.fromkeys(entry for entry, _ in fields(name, value, ",") if entry))
    if not entries:
        raise ParameterError(name, repr(value), "a comma list with at least one entry")
    return entries


def named_lists(name: str, value: str) -> dict[str, tuple[str, ...]]:
    """Parses a comma list of NAME=A|B, in order; NAME= gives no values.

    Text with a comma, an equals sign or a bar is quoted (see `medtl.settings.fields`).

    Raises:
        ParameterError: malformed entry, or duplicate name.
    """
    lists: dict[str, tuple[str, ...]] = {}
    entry: list[tuple[str, str]] = []
    for field, sign in fields(name, value, SIGNS):
        entry.append((field, sign))
        if sign in ("=", "|"):
            continue
        (key, first), *listed = entry
        entry = []
        if not key and not listed:
            continue
        if not key or first != "=" or any(sign == "=" for _, sign in listed) or key in lists:
            raise ParameterError(
                name, value, "a comma list of NAME=A, NAME=A|B or NAME=, each once"
            )
        lists[key] = tuple(dict.fromkeys(each for each, _ in listed if each))
    return lists


def named_columns(name: str, value: str) -> dict[str, tuple[str, ...]]:
    """Parses a comma list of NAME:A or NAME:A|B, in order.

    >>> named_columns("columns", "path:image_id,label:MEL|NV")
    {'path': ('image_id',), 'label': ('MEL', 'NV')}

    Raises:
        ParameterError: malformed entry, or duplicate name.
    """
    lists: dict[str, tuple[str, ...]] = {}
    entry: list[tuple[str, str]] = []
    for field, sign in fields(name, value, ",:|"):
        entry.append((field, sign))
        if sign in (":", "|"):
            continue
        (key, first), *listed = entry
        entry = []
        if not key and not listed:
            continue
        named = tuple(dict.fromkeys(each for each, _ in listed if each))
        if not key or not named or first != ":" or key in lists:
            raise ParameterError(name, value, "a comma list of NAME:A or NAME:A|B, each once")
        if any(sign == ":" for _, sign in listed):
            raise ParameterError(name, value, 'quotation marks around a name with a colon: "a:b"')
        lists[key] = named
    return lists


def check_registered_name(name: str, value: str) -> None:
    """Raises `ParameterError` if MLflow does not accept the name, or a URI cannot contain it."""
    if not _REGISTERED_NAME.fullmatch(value) or value in (".", ".."):
        raise ParameterError(
            name, repr(value), "a name of up to 250 characters without / : @ ? and quotes"
        )


def check_device(value: str) -> None:
    """Raises `ParameterError` if the parameter `device` has no known form."""
    if not _DEVICE.fullmatch(value):
        raise ParameterError("device", value, "auto, cpu, cuda or cuda:N")


def check_number(name: str, entry: str, kind: type, low: float, high: float) -> None:
    """Raises `ParameterError` where an entry of a comma list is no number of this range."""
    try:
        allowed = low <= kind(entry) <= high
    except ValueError:
        allowed = False
    if not allowed:
        what = "whole numbers" if kind is int else "numbers"
        raise ParameterError(name, entry, f"a comma list of {what} {_range(low, high)}")


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"from {low} to {high}"
