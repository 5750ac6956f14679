from __future__ import annotations

import pytest

from medtl.errors import MedtlError, ParameterError
from medtl.masking import masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@db/x", "postgresql://me:***@db/x"),
        ("postgresql+psycopg://me:s/e:c?r@e@t@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("at 'http://me:secret@host:5000', twice", "at 'http://me:***@host:5000', twice"),
        ("postgresql://db/x?user=me&password=secret&a=b", "postgresql://db/x?user=me&password=***&a=b"),
        ("rediss://:secret@cache", "rediss://:***@cache"),
        ("postgresql://me@db:5432/x", "postgresql://me@db:5432/x"),
        ("sqlite:////home/me/optuna.db", "sqlite:////home/me/optuna.db"),
        ("models:/medtl-phantoms@champion", "models:/medtl-phantoms@champion"),
        ("http://localhost:5000 and me@work.org", "http://localhost:5000 and me@work.org"),
    ],
)  # fmt: skip
def test_a_password_in_a_url_is_not_shown(text, shown):
    assert masked(text) == shown


def test_no_error_says_a_password():
    url = "postgresql://me:secret@db/x"
    for error in (MedtlError(f"storage {url} does not open"), ParameterError("storage", url, "x")):
        assert "secret" not in str(error)
        assert "me:***@db" in str(error)
