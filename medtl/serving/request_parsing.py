"""Bounded parsing of requests to the served model; a bad request is refused in one line.

MLflow's scoring server passes each request to its function `invocations`, which parses requests of
any size: a million rows fill the memory, some requests end with status 500, and error messages
contain the images. It also takes longer than a small network. In a scoring server,
`install_request_handler` replaces that function by `respond`.
"""

from __future__ import annotations

import binascii
import json
import math
import re
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard, TypeVar
from urllib.parse import unquote

import mlflow
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
_BESIDE = 1000  # values of a request other than images: names, an index, parameters
EXPLAIN, REQUEST_ID = "explain", "request_id"  # parameters
_ID = re.compile(r"[\x21-\x7e]{1,200}")  # printable, so that an id cannot forge a line of a log

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Parameters:
    """Parameters of a request.

    Attributes:
        explain: true for heat maps.
        request_id: the caller's id of the request; empty to have one made.
    """

    explain: bool = False
    request_id: str = ""


Answered = Callable[[list[list[object]], Parameters], list[dict[str, object]]]
"""Function from rows of image files to rows of answers, as JSON values."""

_FROM_URLS = str.maketrans("-_", "+/")  # RFC 4648, section 5

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


class RefusedRequest(MlflowException):
    """Error of a request that is not answered: status 400, and a message of one line."""

    def __init__(self, line: str) -> None:
        super().__init__(line, error_code=BAD_REQUEST)


def is_server() -> bool:
    """Returns whether this process is a scoring server of MLflow."""
    return "mlflow.pyfunc.scoring_server.app" in sys.modules


def install_request_handler(answered: Answered, identity: dict[str, str | None]) -> None:
    """Installs `answered` as the request handler of MLflow's scoring server in this process.

    `GET /version` then responds with the version of MLflow and the identity of the model, as JSON.
    """
    scoring_server.invocations = partial(respond, answered)
    scoring_server.VERSION = json.dumps({"mlflow": mlflow.__version__, **identity})


def respond(
    answered: Answered, data: bytes, content_type: str | None, model: PyFuncModel, schema: Schema
) -> scoring_server.InvocationsResponse:
    """Responds to the body of a request; called as `invocations` is, except for `answered`.

    Raises:
        RefusedRequest: the body is not a table of images, too large, or takes too long.
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
) -> tuple[list[list[object]], Parameters]:
    """Parses a request into rows, one value per column of `schema`, and its parameters.

    Base64 text becomes bytes, also with line breaks, without padding, in the URL alphabet, as a
    `data:` URL, or in an object under `b64`. Any other value stays as it is and gives an error in
    its row.

    Raises:
        RefusedRequest: malformed table, too many values, or a missing column.
    """
    _check_type(content_type)
    names = [str(name) for name in schema.input_names()]
    _check_length(data, len(names))
    try:
        request = json.loads(data)
    except RecursionError as error:
        raise RefusedRequest("the request is JSON that is nested too deep") from error
    except ValueError as error:
        raise RefusedRequest(f"the request is no JSON: {_short(str(error))}") from error
    readers: dict[str, Callable[[object], list[dict[str, object]]]] = {
        SPLIT: _of_split,
        RECORDS: _of_records,
        INSTANCES: partial(_of_instances, names),
    }
    forms = [form for form in readers if isinstance(request, dict) and form in request]
    if len(forms) != 1:
        columns = ", ".join(f'"{name}": BASE64' for name in names)
        raise RefusedRequest(
            f"the request has to be a JSON object with one of {SPLIT}, {RECORDS} and {INSTANCES}: "
            f'{{"{RECORDS}": [{{{columns}}}]}}'
        )
    (form,) = forms
    rows = readers[form](request[form])
    # a column is missing if no row has it; otherwise rows without it have an error
    there = [name for name in names if not rows or any(name in row for row in rows)]
    required = [str(name) for name in schema.required_input_names()]
    if missing := [name for name in required if name not in there]:
        raise RefusedRequest(f"the request has no column {' and '.join(missing)}")
    return [[file_bytes(row.get(name)) for name in names] for row in rows], _parameters(request)


def check_time() -> None:
    """Stops a request shortly before MLflow responds with status 504.

    Raises:
        RefusedRequest: the request takes longer than the server's time limit.
    """
    if time.monotonic() > _deadline.get():
        raise RefusedRequest(
            "the request takes longer than the server's time limit; send it in parts, or start the "
            "server with a larger --timeout"
        )


def _check_length(data: bytes, columns: int) -> None:
    """Refuses a body with more bytes or values than the largest request, before parsing it."""
    if len(data) > MOST_BYTES * 4 // 3 + 2**20:
        raise RefusedRequest(
            f"the request has more than {MOST_BYTES >> 20} MiB of images; send it in parts"
        )
    # Parsing costs time and memory per value, and before each value stands one of these signs.
    # Base64 contains none of them, and the text around it few.
    values = sum(data.count(sign) for sign in (b",", b"[", b"{", b":"))
    if values > MOST_ROWS * (_SIGNS * columns + 2) + _BESIDE:
        raise RefusedRequest(
            f"the request has {values} values, more than {MOST_ROWS} rows have; send it in parts"
        )


def _of_split(table: object) -> list[dict[str, object]]:
    names = table.get("columns") if isinstance(table, dict) else None
    rows = table.get("data") if isinstance(table, dict) else None
    if not _is_list_of(names, str) or not _is_list_of(rows, list):
        raise RefusedRequest(
            f"{SPLIT} has to have columns, a list of names, and data, a list of rows that are lists"
        )
    if any(len(row) != len(names) for row in rows):
        raise RefusedRequest(f"{SPLIT} has rows of another length than its columns")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _of_records(rows: object) -> list[dict[str, object]]:
    if not _is_list_of(rows, dict):
        raise RefusedRequest(f"{RECORDS} has to be a list of objects, one a row")
    return rows


def _of_instances(names: list[str], rows: object) -> list[dict[str, object]]:
    """Converts instances to records; for a model of one image an instance may be the image."""
    if not _is_list_of(rows, object):
        raise RefusedRequest(f"{INSTANCES} has to be a list, a row each")
    if len(names) == 1:
        rows = [{names[0]: row} if _is_file(row) else row for row in rows]
    if not _is_list_of(rows, dict):
        raise RefusedRequest(f"{INSTANCES} has to be a list of objects with {' and '.join(names)}")
    return rows


def _parameters(request: dict[str, object]) -> Parameters:
    params = request.get("params") or {}
    if not isinstance(params, dict):
        params = {EXPLAIN: None}
    explain, request_id = params.get(EXPLAIN, False), params.get(REQUEST_ID, "")
    if not isinstance(explain, bool):
        raise RefusedRequest('params has to be an object, {"explain": true} or {"explain": false}')
    return Parameters(explain, checked_id(request_id))


def checked_id(request_id: object) -> str:
    """Checks the caller's id of a request: up to 200 printable ASCII characters without spaces.

    Raises:
        RefusedRequest: it is another value.
    """
    if request_id == "":
        return ""
    if not isinstance(request_id, str) or not _ID.fullmatch(request_id):
        raise RefusedRequest(
            f"{REQUEST_ID} has to be text of at most 200 printable ASCII characters without spaces"
        )
    return request_id


def _is_list_of(values: object, kind: type[Kind]) -> TypeGuard[list[Kind]]:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


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


def file_bytes(value: object) -> object:
    """Decodes base64 text, as text or `{"b64": TEXT}`, to bytes; returns other values unchanged.

    >>> file_bytes("data:image/png;base64,aGVsbG8")
    b'hello'
    """
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
