"""Problems to HTTP: a status, a JSON body of one shape, and nothing about our insides."""

from http import HTTPStatus
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor

from libs.problems import Code, Problem
from services.gateway.codec.names import json_path
from services.gateway.problems import HttpProblem

CLIENT_GONE = 499
STATUS: dict[Code, int] = {
    Code.CANCELLED: CLIENT_GONE,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
# What HTTP tells apart and the canonical codes do not.
_BY_REASON = {"ETAG_MISMATCH": 412, "FILE_TOO_LARGE": 413}
_MESSAGES = {
    500: "Internal error.",
    501: "This call is not served.",
    503: "Temporarily unavailable; try again.",
    504: "The call took too long.",
}
_AWAY_SECONDS = 1


def status_of(problem: Problem) -> int:
    """The HTTP status of a refusal."""
    if isinstance(problem, HttpProblem):
        return problem.status
    return _BY_REASON.get(problem.reason) or STATUS[problem.code]


def body_of(problem: Problem, request_id: str, names: Descriptor | None = None) -> dict[str, Any]:
    """The JSON of a refusal. `names` is the request's descriptor, whose paths become JSON's.

    Of 5xx only code and a fixed text are told.
    """
    status = status_of(problem)
    error: dict[str, Any] = {"code": status, "status": problem.code.value, "reason": problem.reason}
    if status >= 500:
        error |= {"reason": _reason(problem), "message": _MESSAGES[status], "metadata": {}, "violations": []}
    else:
        error |= {
            "message": problem.message,
            "metadata": _metadata(problem, names),
            "violations": [
                {
                    "field": violation.field if names is None else json_path(names, violation.field),
                    "reason": violation.reason or "INVALID",
                    "description": violation.description,
                }
                for violation in problem.violations
            ],
        }
    error["requestId"] = request_id
    return {"error": error}


def _metadata(problem: Problem, names: Descriptor | None) -> dict[str, str]:
    """The facts; `field` among them is a path like those of the violations."""
    field = problem.metadata.get("field")
    if field is None or names is None:
        return dict(sorted(problem.metadata.items()))
    return dict(sorted((problem.metadata | {"field": json_path(names, field)}).items()))


def _reason(problem: Problem) -> str:
    return "INTERNAL" if problem.code is Code.INTERNAL else problem.reason


def to_bytes(body: dict[str, Any]) -> bytes:
    """The JSON text of an error's body."""
    return orjson.dumps(body)


def headers_of(problem: Problem) -> list[tuple[bytes, bytes]]:
    """Headers that belong to a refusal: Retry-After, WWW-Authenticate, Allow."""
    headers: list[tuple[bytes, bytes]] = []
    status = status_of(problem)
    wait = problem.retry_after_seconds
    if wait is None and status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        wait = _AWAY_SECONDS
    if wait is not None and (status in {409, 429} or status >= 500):
        headers.append((b"retry-after", str(max(1, -int(-wait // 1))).encode()))
    if status == HTTPStatus.UNAUTHORIZED and not problem.reason.startswith("LINK_"):
        challenge = 'Bearer realm="regulars"'
        if problem.metadata.get("cause", "missing") != "missing":
            challenge += ', error="invalid_token"'
        headers.append((b"www-authenticate", challenge.encode()))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", problem.metadata["allow"].encode()))
    return headers
