"""Passwords and tokens of URLs: never shown, logged or printed.

A value that is a URL is masked by its parts (`masked_value`), whatever characters a password has.
In a sentence the end of a URL that was not escaped is uncertain: the URL is masked before it is put
there, and messages of other libraries are searched for its secrets (`without_secrets`). `masked`
finds what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"
SHORT = 4  # characters below which a secret is looked for as a word of its own only

# Names of what a URL's query, or its fragment, keeps secret.
_SECRET = (
    r"[\w.-]*(?:pass(?!file)|pwd|secret|token|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*"
    r"|(?:[\w.-]*[_.-])?sig|key|auth|authorization"
)
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
_URL = re.compile(r"\s*(?P<scheme>[a-z][\w+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_TOKEN_SCHEMES = ("http", "https", "git", "ssh")  # a user without a password is a token there

# In a sentence: greedy up to the last @ before a space or quotation mark; where there is none, up
# to the next @ of the line, unless a port stands there. The scheme is looked for once in each run
# of letters: a long run would else take minutes.
_IN_URL = re.compile(
    r"((?<![\w+.-])[\w+.-]*://[^\s:/@?#]*):(?!\*\*\*@)"
    r"(?:[^\s\"'<>]*@|(?!\d{0,5}(?:[\s\"'<>/,;).]|$))[^\n@]*@)"
)
_TOKEN_IN_URL = re.compile(r"((?<![\w+.-])(?:https?|git|ssh)://)(?!\*\*\*@)[^\s:/@?#\"'<>]+@")
_IN_QUERY = re.compile(rf"((?<![\w.-])(?:{_SECRET})=)(?!\*\*\*)[^\s&;,\"'<>]+", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with `***` in place of each password and token that is found in a URL."""
    text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    text = _TOKEN_IN_URL.sub(rf"\1{HIDDEN}@", text)
    return _IN_QUERY.sub(rf"\1{HIDDEN}", text)


def masked_value(value: str) -> str:
    """A value, which may be a URL as a whole, with `***` in place of its secrets.

    A password that was not escaped goes up to the last @. A user without a password is a token in
    URLs of the web, and a name in those of databases.
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
    """What others say, with `***` in place of all that these URLs keep secret, as `masked` else."""
    forms = {form for url in urls for secret in secrets(url) for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = _anywhere(form).sub(HIDDEN, text)
    return masked(text)


def secrets(url: str) -> tuple[str, ...]:
    """The passwords and tokens of a URL, as they stand there; none of what is no URL.

    SQLAlchemy's parser says what is the password where it can read the URL, and how the parameters
    of its query are called.
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
    """The secrets that SQLAlchemy reads in a URL, none where it cannot read it."""
    # imported only where it is needed: errors are imported before all else
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
    """Host, path and query, with the values of secret parameters hidden."""
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
    """A secret as it stands, without its escapes, and as Python and psycopg quote it."""
    for form in (secret, unquote(secret), unquote_plus(secret)):
        yield form
        yield repr(form)[1:-1]
        yield " ".join(form.split())


def _anywhere(form: str) -> re.Pattern[str]:
    whole = rf"(?<!\w){re.escape(form)}(?!\w)" if len(form) < SHORT else re.escape(form)
    return re.compile(whole if form.strip() else r"(?!)")
