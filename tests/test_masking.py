from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.artifacts import load_text
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError, ParameterError, masked, masked_value, secrets, without_secrets
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import tracked_run
from medtl.tuning.storage import open_store

# Passwords of any printable characters, with frequent ends of words and URLs.
PASSWORDS = st.text(
    st.one_of(
        st.sampled_from("\"'<> @:/?#&=;%+,{}*"),
        st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("C", "Z")),
    ),
    min_size=1,
    max_size=30,
).map(lambda text: f"Xk7{text}7Wq")
SECRET_NAMES = (
    "password",
    "sslpassword",
    "passwd",
    "token",
    "sig",
    "access_token",
    "PWD",
    "api_key",
)


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


@settings(max_examples=200, deadline=None)
@given(PASSWORDS, st.sampled_from((str, quote, quote_plus)))
def test_no_password_is_shown_whatever_it_is_made_of(password, escaped):
    typed = escaped(password)
    url = f"postgresql://me:{typed}@db:5432/x"
    assert masked_value(url) == "postgresql://me:***@db:5432/x"
    assert without_secrets(f"no server for {url}, nor for {password}", url).count("***") == 2
    with pytest.raises(ParameterError) as refused:
        TuneSettings(storage=url, lr_low=1.0, lr_high=0.1)
    assert "Xk7" not in str(refused.value)
    assert "Xk7" not in str(ParameterError("storage", url, "a URL"))


@settings(max_examples=200, deadline=None)
@given(PASSWORDS, st.sampled_from((quote, quote_plus)), st.sampled_from(SECRET_NAMES))
def test_no_secret_of_a_query_is_shown(password, escaped, name):
    url = f"postgresql://me@db/x?a=b&{name}={escaped(password, safe='')}&sslmode=require"
    hidden = f"postgresql://me@db/x?a=b&{name}=***&sslmode=require"
    assert masked_value(url) == hidden
    assert masked(f"the storage {url} is gone") == f"the storage {hidden} is gone"
    assert "Xk7" not in without_secrets(f"{password!r} is wrong, not {password}", url)
    assert password in secrets(url)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://t0ken@host/x", "https://***@host/x"),
        ("https://me:t0ken@host/x", "https://me:***@host/x"),
        ("postgresql://db/x?sslpassword=a b&c=d", "postgresql://db/x?sslpassword=***&c=d"),
        ("postgresql://db/x?pass%77ord=a", "postgresql://db/x?pass%77ord=***"),
        ("s3://bucket/x?X-Amz-Signature=1a&part=2", "s3://bucket/x?X-Amz-Signature=***&part=2"),
        ("https://host/#access_token=1a", "https://host/#access_token=***"),
        ("postgresql://me@db/x?passfile=/a&design=b", "postgresql://me@db/x?passfile=/a&design=b"),
        ("models:/medtl-phantoms@champion", "models:/medtl-phantoms@champion"),
        ("sqlite:////home/me/optuna.db", "sqlite:////home/me/optuna.db"),
    ],
)
def test_a_value_is_masked_by_the_parts_of_its_url(value, shown):
    assert masked_value(value) == shown
    assert masked_value(shown) == shown


def test_no_parameter_setting_or_tag_of_a_run_has_a_password(monkeypatch, capsys):
    storage = "postgresql://me:Xk7\"' <7Wq@127.0.0.1:1/x?sslpassword=Xk7"
    handed_over = MlflowClient().create_run("0").info.run_id
    MlflowClient().log_param(handed_over, "storage", storage)  # as mlflow run does
    monkeypatch.setenv("MLFLOW_RUN_ID", handed_over)
    with (
        pytest.raises(MedtlError, match="does not open") as told,
        tracked_run("tune", TuneSettings(storage=storage)),
    ):
        open_store(storage)
    assert "Xk7" not in str(told.value)
    run = mlflow.get_run(handed_over)
    assert run.data.params["storage"] == "postgresql://me:***@127.0.0.1:1/x?sslpassword=***"
    kept = json.loads(load_text(f"{run.info.artifact_uri}/settings.json"))
    assert kept["storage"] == run.data.params["storage"]
    assert "Xk7" not in "".join([*run.data.tags.values(), *capsys.readouterr()])
