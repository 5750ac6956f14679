"""Errors with one line for the user, and masking of passwords in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus

# A value that is a URL is masked by its parts (`masked_value`), whatever characters a password has.
# In a sentence the end of an unescaped URL is ambiguous: URLs are masked before they are inserted,
# and the secrets of a URL are replaced in messages of other libraries (`without_secrets`). `masked`
# handles any other text.


HIDDEN = "***"
SHORT = 4  # shorter secrets are replaced only as whole words

# Secret parameters in the query or fragment of a URL.
_SECRET = (
    r"[\w.-]*(?:pass(?!file)|pwd|secret|token|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*"
    r"|(?:[\w.-]*[_.-])?sig|key|auth|authorization"
)
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
_URL = re.compile(r"\s*(?P<scheme>[a-z][\w+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_TOKEN_SCHEMES = ("http", "https", "git", "ssh")  # a user without a password is a token there

# In a sentence: greedy up to the last @ before a space or quotation mark; without one, up to the
# next @ of the line, unless a port precedes it. The scheme is matched once per run of letters,
# since backtracking over a long run would take minutes.
_IN_URL = re.compile(
    r"((?<![\w+.-])[\w+.-]*://[^\s:/@?#]*):(?!\*\*\*@)"
    r"(?:[^\s\"'<>]*@|(?!\d{0,5}(?:[\s\"'<>/,;).]|$))[^\n@]*@)"
)
_TOKEN_IN_URL = re.compile(r"((?<![\w+.-])(?:https?|git|ssh)://)(?!\*\*\*@)[^\s:/@?#\"'<>]+@")
_IN_QUERY = re.compile(rf"((?<![\w.-])(?:{_SECRET})=)(?!\*\*\*)[^\s&;,\"'<>]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Replaces each password and token of a URL in a text by `***`."""
    text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    text = _TOKEN_IN_URL.sub(rf"\1{HIDDEN}@", text)
    return _IN_QUERY.sub(rf"\1{HIDDEN}", text)


def masked_value(value: str) -> str:
    """Replaces the secrets of a value that may be a URL as a whole by `***`.

    An unescaped password extends to the last @. A user without a password is a token in web URLs,
    and a name in database URLs.
    """
    found = _URL.fullmatch(value)
    if found is None:
        return masked(value)
    scheme, rest = found["scheme"], found["rest"]
    user, at, place = rest.rpartition("@")
    name, colon, password = user.partition(":")
    if password:
        user = f"{name}{colon}{HIDDEN}"
    elif user and scheme.lower() in _TOKEN_SCHEMES:
        user = HIDDEN
    return f"{scheme}://{user}{at}{_masked_query(place)}"


def without_secrets(text: str, *urls: str) -> str:
    """Replaces the secrets of these URLs in a foreign message by `***`, then applies `masked`."""
    forms = {form for url in urls for secret in secrets(url) for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = _anywhere(form).sub(HIDDEN, text)
    return masked(text)


def secrets(url: str) -> tuple[str, ...]:
    """Returns the passwords and tokens of a URL as written; empty for other text.

    Uses SQLAlchemy's parser for the password and the names of query parameters if it can read the
    URL.
    """
    found = _URL.fullmatch(url)
    if found is None:
        return ()
    user, _, place = found["rest"].rpartition("@")
    name, _, password = user.partition(":")
    taken = [password]
    if not password and found["scheme"].lower() in _TOKEN_SCHEMES:
        taken.append(name)
    taken += [value for key, value in _parameters(place) if _is_secret(key)]
    taken += _parsed(url)
    return tuple(dict.fromkeys(filter(None, taken)))


def _parsed(url: str) -> list[str]:
    """Returns the secrets that SQLAlchemy finds in a URL; empty if it cannot parse it."""
    # imported on demand, since the errors module is imported first
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return []
    query = parsed.normalized_query
    values = [each for key, listed in query.items() if _is_secret(key) for each in listed]
    return [str(parsed.password or ""), *values]


def _masked_query(place: str) -> str:
    """Masks the values of secret parameters in host, path and query."""
    parts = re.split(r"([?&;#])", place)
    for index in range(2, len(parts), 2):
        key, sign, value = parts[index].partition("=")
        if sign and value and _is_secret(unquote_plus(key)):
            parts[index] = f"{key}={HIDDEN}"
    return "".join(parts)


def _parameters(place: str) -> Iterable[tuple[str, str]]:
    for part in re.split(r"[?&;#]", place)[1:]:
        key, _, value = part.partition("=")
        yield unquote_plus(key), value


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(name.strip()) is not None


def _forms(secret: str) -> Iterable[str]:
    """Yields the forms of a secret: as written, unescaped, and as quoted by Python and psycopg."""
    for form in (secret, unquote(secret), unquote_plus(secret)):
        yield form
        yield repr(form)[1:-1]
        yield " ".join(form.split())


def _anywhere(form: str) -> re.Pattern[str]:
    whole = rf"(?<!\w){re.escape(form)}(?!\w)" if len(form) < SHORT else re.escape(form)
    return re.compile(whole if form.strip() else r"(?!)")


LONGEST = 1000  # characters of a line


class MedtlError(Exception):
    """The work cannot be done; the message is one line: what, where, what to do (exit status 1).

    No password that stands in a URL is in the message. It may cite what files hold: what cannot be
    printed is shown as a space, and the middle of a very long line is left out.
    """

    def __init__(self, message: str) -> None:
        line = masked(_shortened(message, 10 * LONGEST))
        line = "".join(each if each.isprintable() else " " for each in line)
        super().__init__(_shortened(line, LONGEST))


class ParameterError(MedtlError):
    """A parameter has a value that is not allowed (exit status 2).

    `name` is the parameter as the user typed it, `allowed` says what may stand there instead.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}={masked_value(str(value))} is not allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


def _shortened(line: str, longest: int) -> str:
    half = longest // 2
    return line if len(line) <= longest else f"{line[:half]} ... {line[-half:]}"
