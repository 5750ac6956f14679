"""What is asked of the served model: parsed within bounds, or refused in one line.

MLflow's scoring server hands each request to its function `invocations`. That parses whatever was
sent: a million rows fill the memory before the model sees one, some requests end in status 500, and
the line of a refusal has the images printed into it. It also takes longer than a small network.
In a server's process `stand_in` puts `respond` in its place; all else stays MLflow's.
"""

from __future__ import annotations

import binascii
import json
import math
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.types import Schema

JSON = "application/json"
SPLIT, RECORDS = "dataframe_split", "dataframe_records"
MOST_ROWS = 4096
MOST_BYTES = 512 * 2**20  # of images
_SHARE_OF_TIMEOUT = 0.9  # after which a request is given up: later MLflow answers status 504
_BESIDE = 1000  # values of a request that are no images: names, an index, parameters

Answered = Callable[[list[list[object]], bool], list[dict[str, object]]]
"""Answers rows of image files, and says whether to explain: a row each of what JSON knows."""

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


class RefusedRequest(MlflowException):
    """A request that is not answered at all: status 400, and one line that says why."""

    def __init__(self, line: str) -> None:
        super().__init__(line, error_code=BAD_REQUEST)


def stand_in(answered: Answered) -> None:
    """Has MLflow's scoring server, where this process is one, answer each request by `answered`."""
    if "mlflow.pyfunc.scoring_server.app" in sys.modules:
        scoring_server.invocations = partial(respond, answered)


def respond(
    answered: Answered, data: bytes, content_type: str | None, model: PyFuncModel, schema: Schema
) -> scoring_server.InvocationsResponse:
    """The answer to the body of a request; but for `answered` it is called as `invocations` is.

    Raises:
        RefusedRequest: the body is no table of images, or too large, or takes too long.
    """
    limit = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()
    before = _deadline.set(time.monotonic() + limit * _SHARE_OF_TIMEOUT)
    try:
        rows = answered(*parsed(data, content_type, schema))
    finally:
        _deadline.reset(before)
    return scoring_server.InvocationsResponse(json.dumps({"predictions": rows}), 200, JSON)


def parsed(
    data: bytes, content_type: str | None, schema: Schema
) -> tuple[list[list[object]], bool]:
    """The rows of a request's table, a value for each column of `schema`, and whether to explain.

    Text in base64 becomes bytes; any other value stays as it is, for the row to say what is wrong.

    Raises:
        RefusedRequest: the body is no such table, has too many values, or no such column.
    """
    kind, _, beside = (content_type or "").lower().partition(";")
    if kind.strip() != JSON or beside.strip() not in ("", "charset=utf-8"):
        raise RefusedRequest(f"the request is {_short(content_type or 'of no type')}, not {JSON}")
    names = schema.input_names()
    _check_length(data, len(names))
    try:
        request = json.loads(data)
    except RecursionError as error:
        raise RefusedRequest("the request is JSON that is nested too deep") from error
    except ValueError as error:
        raise RefusedRequest(f"the request is no JSON: {_short(str(error))}") from error
    forms = [form for form in (SPLIT, RECORDS) if isinstance(request, dict) and form in request]
    if len(forms) != 1:
        raise RefusedRequest(f"the request has to be a JSON object with {SPLIT} or {RECORDS}")
    rows = _of_split(request[SPLIT]) if forms == [SPLIT] else _of_records(request[RECORDS])
    # Where no row has the column, it was left out; what is missing in one is that row's fault.
    there = [name for name in names if not rows or any(name in row for row in rows)]
    if missing := [name for name in schema.required_input_names() if name not in there]:
        raise RefusedRequest(f"the request has no column {' and '.join(missing)}")
    return [[_file(row.get(name)) for name in names] for row in rows], _explain(request)


def check_time() -> None:
    """Gives up a request whose sender MLflow will soon have told that it took too long.

    Raises:
        RefusedRequest: it takes longer than the server's time limit.
    """
    if time.monotonic() > _deadline.get():
        raise RefusedRequest(
            "the request takes longer than the server's time limit; send it in parts, or start the "
            "server with a larger --timeout"
        )


def _check_length(data: bytes, columns: int) -> None:
    """Refuses, unparsed, what has more bytes or values than the largest request has."""
    if len(data) > MOST_BYTES * 4 // 3 + 2**20:
        raise RefusedRequest(
            f"the request has more than {MOST_BYTES >> 20} MiB of images; send it in parts"
        )
    # What parsing takes goes by the values, each of which has one of these signs before it; base64
    # has none of them.
    values = sum(data.count(sign) for sign in (b",", b"[", b"{", b":"))
    if values > MOST_ROWS * (2 * columns + 2) + _BESIDE:
        raise RefusedRequest(
            f"the request has {values} values, more than {MOST_ROWS} rows have; send it in parts"
        )


def _of_split(table: object) -> list[dict[str, object]]:
    names, rows = (table.get(key) for key in ("columns", "data")) if _is(dict, table) else (0, 0)
    if not _is(list, names, rows) or not _is(list, *rows) or not _is(str, *names):
        raise RefusedRequest(
            f"{SPLIT} has to have columns, a list of names, and data, a list of rows that are lists"
        )
    if any(len(row) != len(names) for row in rows):
        raise RefusedRequest(f"{SPLIT} has rows of another length than its columns")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _of_records(rows: object) -> list[dict[str, object]]:
    if not _is(list, rows) or not _is(dict, *rows):
        raise RefusedRequest(f"{RECORDS} has to be a list of objects, one a row")
    return rows


def _explain(request: dict[str, object]) -> bool:
    params = request.get("params") or {}
    explain = params.get("explain", False) if isinstance(params, dict) else None
    if not isinstance(explain, bool):
        raise RefusedRequest('params has to be an object, {"explain": true} or {"explain": false}')
    return explain


def _is(kind: type, *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)


def _file(value: object) -> object:
    """The bytes of a text in base64; anything else as it is."""
    try:
        return binascii.a2b_base64(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
