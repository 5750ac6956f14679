"""Requests to the served model: parsed within bounds, or refused in one line.

MLflow's scoring server hands each request to its function `invocations`. That parses whatever was
sent: a million rows fill the memory before the model sees one, some requests end in status 500, and
the line of a refusal has the images printed into it. It also takes longer than a small network.
In a server's process `install_request_handler` puts `respond` in its place; all else stays
MLflow's.
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
from urllib.parse import unquote

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.types import Schema

JSON = "application/json"
SPLIT, RECORDS, INSTANCES = "dataframe_split", "dataframe_records", "instances"
B64 = "b64"  # key of an object that holds bytes, as in TensorFlow Serving
MOST_ROWS = 4096
MOST_BYTES = 512 * 2**20  # of images
_SHARE_OF_TIMEOUT = 0.9  # of the time before MLflow responds with status 504
_SIGNS = 6  # structural characters per image: "image": {"b64": "data:image/png;base64,..."},
_BESIDE = 1000  # values of a request that are no images: names, an index, parameters

Answered = Callable[[list[list[object]], bool], list[dict[str, object]]]
"""Answers rows of image files, and says whether to explain: a row each of what JSON knows."""

_FROM_URLS = str.maketrans("-_", "+/")  # RFC 4648, section 5

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


class RefusedRequest(MlflowException):
    """A request that is not answered at all: status 400, and one line that says why."""

    def __init__(self, line: str) -> None:
        super().__init__(line, error_code=BAD_REQUEST)


def is_server() -> bool:
    """Returns whether this process is a scoring server of MLflow."""
    return "mlflow.pyfunc.scoring_server.app" in sys.modules


def install_request_handler(answered: Answered) -> None:
    """Installs `answered` as the request handler of MLflow's scoring server in this process."""
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
    """Parses a request into rows, one value per column of `schema`, and the `explain` flag.

    Base64 text becomes bytes, also with line breaks, without padding, in the URL alphabet, as a
    `data:` URL, or in an object under `b64`. Any other value stays as it is and gives an error in
    its row.

    Raises:
        RefusedRequest: malformed table, too many values, or a missing column.
    """
    _check_type(content_type)
    names = schema.input_names()
    _check_length(data, len(names))
    try:
        request = json.loads(data)
    except RecursionError as error:
        raise RefusedRequest("the request is JSON that is nested too deep") from error
    except ValueError as error:
        raise RefusedRequest(f"the request is no JSON: {_short(str(error))}") from error
    readers = {SPLIT: _of_split, RECORDS: _of_records, INSTANCES: partial(_of_instances, names)}
    forms = [form for form in readers if isinstance(request, dict) and form in request]
    if len(forms) != 1:
        columns = ", ".join(f'"{name}": BASE64' for name in names)
        raise RefusedRequest(
            f"the request has to be a JSON object with one of {SPLIT}, {RECORDS} and {INSTANCES}: "
            f'{{"{RECORDS}": [{{{columns}}}]}}'
        )
    (form,) = forms
    rows = readers[form](request[form])
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
    # has none of them, and what may stand around it few.
    values = sum(data.count(sign) for sign in (b",", b"[", b"{", b":"))
    if values > MOST_ROWS * (_SIGNS * columns + 2) + _BESIDE:
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


def _of_instances(names: list[str], rows: object) -> list[dict[str, object]]:
    """Converts instances to records; for a model of one image an instance may be the image."""
    if not _is(list, rows):
        raise RefusedRequest(f"{INSTANCES} has to be a list, a row each")
    if len(names) == 1:
        rows = [{names[0]: row} if _is_file(row) else row for row in rows]
    if not _is(dict, *rows):
        raise RefusedRequest(f"{INSTANCES} has to be a list of objects with {' and '.join(names)}")
    return rows


def _explain(request: dict[str, object]) -> bool:
    params = request.get("params") or {}
    explain = params.get("explain", False) if isinstance(params, dict) else None
    if not isinstance(explain, bool):
        raise RefusedRequest('params has to be an object, {"explain": true} or {"explain": false}')
    return explain


def _is(kind: type, *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)


def _check_type(content_type: str | None) -> None:
    """Refuses any content type except JSON in UTF-8; ignores parameters (RFC 8259, 11)."""
    kind, *parameters = (part.strip() for part in (content_type or "").lower().split(";"))
    if kind != JSON:
        raise RefusedRequest(f"the request is {_short(content_type or 'of no type')}, not {JSON}")
    for parameter in parameters:
        name, _, value = (part.strip(' "') for part in parameter.partition("="))
        if name == "charset" and value not in ("utf-8", "utf8", "us-ascii"):
            raise RefusedRequest(
                f"the request is JSON in {_short(value) or 'no charset'}; send it in UTF-8"
            )


def _is_file(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and set(value) == {B64})


def _file(value: object) -> object:
    """Returns the bytes of a text in base64; anything else as it is."""
    text = value[B64] if isinstance(value, dict) and set(value) == {B64} else value
    if not isinstance(text, str):
        return value
    try:
        return binascii.a2b_base64(_base64(text), strict_mode=True)
    except ValueError:
        return text


def _base64(text: str) -> str:
    """Normalizes common variants of base64 to RFC 4648, section 4.

    Raises:
        ValueError: a `data:` URL in another encoding.
    """
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().rstrip().endswith(";base64"):
            raise ValueError("no base64")
        text = unquote(text)
    text = "".join(text.split()).translate(_FROM_URLS).rstrip("=")
    return text + "=" * (-len(text) % 4)


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
