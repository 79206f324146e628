"""Problems to gRPC statuses and back: the only place that knows both."""

from collections.abc import Callable, Mapping
from functools import cache
from types import new_class
from typing import cast

import grpc
import psycopg
from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import Code as RpcCode
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from libs import problems
from libs.problems import Code, Conflict, DeadlineExceeded, Problem, Unavailable, Violation

DOMAIN = "regulars"
DETAILS_KEY = "grpc-status-details-bin"
# A client refuses trailers above 8 KiB with RESOURCE_EXHAUSTED and hides the status (decision 25).
MAX_VIOLATIONS = 50
MAX_DETAILS = 4096
MAX_TEXT = 300
RETRY_SECONDS = 1.0

Constraints = Mapping[str, Callable[[], Problem]]

_CONFLICTS = {"40001", "40P01", "55P03"}  # serialization, deadlock, lock not to be had in time
_AWAY_CLASSES = {"08", "53", "57"}  # connection, resources, operator's intervention
_AWAY = {"25006", "25P03", "58030"}  # read only (a standby, a full disk), idle too long, I/O
_CANCELLED = "57014"


def status_code(code: Code) -> grpc.StatusCode:
    """gRPC's own value of a canonical code."""
    return grpc.StatusCode[code.name]


def to_status(problem: Problem) -> Status:
    """The status that a client gets, with at most 4 KiB of details."""
    status = Status(code=RpcCode.Value(problem.code.name), message=_cut(problem.message))
    metadata = {_cut(key): _cut(value) for key, value in problem.metadata.items()}
    request = BadRequest()
    room = MAX_DETAILS - sum(len(key) + len(value) + 8 for key, value in metadata.items()) - 256
    for violation in problem.violations[:MAX_VIOLATIONS]:
        entry = BadRequest.FieldViolation(
            field=_cut(violation.field),
            description=_cut(violation.description),
            reason=_cut(violation.reason),
        )
        room -= entry.ByteSize() + 4
        if room < 0:
            break
        request.field_violations.append(entry)
    if problem.violations:
        metadata["violations_total"] = str(len(problem.violations))
    status.details.add().Pack(ErrorInfo(reason=problem.reason, domain=DOMAIN, metadata=metadata))
    if request.field_violations:
        status.details.add().Pack(request)
    if problem.retry_after_seconds is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(round(problem.retry_after_seconds * 1000))
        status.details.add().Pack(retry)
    return status


def _cut(text: str) -> str:
    """`text` as protobuf can carry it, and not too long."""
    return text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore")


def from_status(status: Status) -> Problem:
    """The Problem that a status tells. Of our own reasons the class is that of `libs.problems`."""
    info, retry, violations = ErrorInfo(), None, []
    for detail in status.details:
        if detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(RetryInfo.DESCRIPTOR):
            wait = RetryInfo()
            detail.Unpack(wait)
            retry = wait.retry_delay.ToMilliseconds() / 1000
        elif detail.Is(BadRequest.DESCRIPTOR):
            request = BadRequest()
            detail.Unpack(request)
            violations = [Violation(v.field, v.description, v.reason) for v in request.field_violations]
    code = _code(status.code)
    kind = _kind(code, info.reason if info.domain == DOMAIN else "")
    problem = kind(status.message, violations=violations, retry_after_seconds=retry)
    problem.metadata = dict(info.metadata)
    return problem


def from_rpc_error(error: grpc.aio.AioRpcError) -> Problem:
    """The Problem behind a failed call: the peer's own, or the one of gRPC's code.

    CANCELLED is what a peer that stops makes of calls that outlast its grace, so it is Unavailable: a call that
    was cancelled on our side ends with asyncio's own error and never gets here.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(Status.FromString(value))
            except DecodeError:
                break
    if error.code() is grpc.StatusCode.CANCELLED:
        return Unavailable("The service stopped during the call.")
    return _kind(_code(error.code().value[0]), "")()


def _code(number: int) -> Code:
    name = RpcCode.Name(number) if number in RpcCode.values() else "INTERNAL"
    if name in Code.__members__:
        return Code[name]
    return {"UNKNOWN": Code.INTERNAL, "OUT_OF_RANGE": Code.INVALID_ARGUMENT}.get(name, Code.INTERNAL)


_GENERIC: dict[Code, type[Problem]] = {
    Code.INVALID_ARGUMENT: problems.InvalidArgument,
    Code.NOT_FOUND: problems.NotFound,
    Code.PERMISSION_DENIED: problems.PermissionDenied,
    Code.UNAUTHENTICATED: problems.Unauthenticated,
    Code.UNAVAILABLE: problems.Unavailable,
    Code.DEADLINE_EXCEEDED: problems.DeadlineExceeded,
    Code.RESOURCE_EXHAUSTED: problems.TooManyRequests,
}
_OWN: tuple[type[Problem], ...] = (Conflict, problems.EtagMismatch, problems.RequestIdReused)
_NAMED = {(kind.code, kind.reason): kind for kind in (*_GENERIC.values(), *_OWN)}


@cache
def _kind(code: Code, reason: str) -> type[Problem]:
    """A class that is caught as the generic one of its code and bears the peer's reason."""
    named = _NAMED.get((code, reason))
    if named is not None:
        return named
    generic = _GENERIC.get(code, Problem)
    facts = {"code": code, "reason": reason or code.value}
    return cast(
        type[Problem], new_class("PeerProblem", (generic,), exec_body=lambda body: body.update(facts))
    )


def from_database(error: BaseException, constraints: Constraints | None = None) -> Problem | None:
    """What a database error means to the caller, or None if it is a bug of ours.

    `constraints` maps names of constraints to the refusals of their service.
    """
    if isinstance(error, PoolTimeoutError):
        return Unavailable(retry_after_seconds=RETRY_SECONDS)
    driver = _driver_error(error)
    if driver is None:
        return None
    state = driver.sqlstate
    if isinstance(driver, psycopg.IntegrityError):
        refusal = (constraints or {}).get(driver.diag.constraint_name or "")
        return refusal() if refusal else None
    if state == _CANCELLED:
        return DeadlineExceeded("The database did not answer in time.")
    if state in _CONFLICTS:
        return Conflict(retry_after_seconds=0)
    lost = state is None and isinstance(driver, psycopg.OperationalError | psycopg.InterfaceError)
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or invalidated or (state is not None and (state[:2] in _AWAY_CLASSES or state in _AWAY)):
        return Unavailable(retry_after_seconds=RETRY_SECONDS)
    return None


def database_facts(error: BaseException) -> dict[str, str]:
    """What may be logged of a database error: its SQLSTATE and names, never its text, which shows values."""
    driver = _driver_error(error)
    if driver is None:
        return {}
    diag = driver.diag
    facts = {"sqlstate": driver.sqlstate, "constraint": diag.constraint_name, "table": diag.table_name}
    facts["column"] = diag.column_name
    return {"driver": type(driver).__name__} | {key: value for key, value in facts.items() if value}


def _driver_error(error: BaseException) -> psycopg.Error | None:
    inner = error.orig if isinstance(error, DBAPIError) else error
    return inner if isinstance(inner, psycopg.Error) else None


def from_exception(error: BaseException, constraints: Constraints | None = None) -> Problem | None:
    """The refusal that an exception of a handler is, or None if it is a bug."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    return from_database(error, constraints)
