"""Logs are JSON lines with trace ids; they hold ids and names of things, never values or texts of errors."""

import logging
import re
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import orjson
from opentelemetry import trace

from libs import status
from libs.caller import Caller, _current
from libs.config import ROOT, ConfigError
from libs.contracts import ContractError
from libs.problems import Problem

# Whose loop or call this is; several services may share a process.
service_name: ContextVar[str] = ContextVar("service_name", default="")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Their texts name code and configuration. All others may show values ("invalid literal for int(): 'Ann'").
_TELLING = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    NotImplementedError,
    ConfigError,
    ContractError,
)
_QUIET = ("httpx", "httpcore", "urllib3", "asyncio", "nats", "sqlalchemy", "psycopg", "psycopg.pool")

_REDACTIONS = (
    (re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]*"), "[token]"),
    (re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]+(?=@)"), "[credentials]"),
    (re.compile(r"[\w.%+-]+@[\w-]+\.[\w.-]+"), "[e-mail]"),
    (re.compile(r"(?<![\w.+-])\+\d[\d ().-]{5,18}\d"), "[phone]"),
)


def redact(text: str) -> str:
    """`text` without what looks like a token, a password in an address, an e-mail or a phone number.

    The last wall only: nothing personal should get as far as a log call.
    """
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, service, trace, caller's ids, extras, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = record.getMessage()
        if record.name == "asyncio":
            # Its further lines show the exception of a task as it is.
            message = message.partition("\n")[0]
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(message),
        }
        if name := service_name.get():
            line["service"] = name
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        caller = _current.get(None)
        if caller is not None:
            line |= _who(caller)
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                line[key] = redact(value) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return orjson.dumps(line, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _who(caller: Caller) -> dict[str, str]:
    facts = {
        "tenant": str(caller.tenant_id) if caller.tenant_id else "",
        "method": caller.method,
        "request_id": redact(caller.request_id),
        "peer": caller.service or "",
    }
    return {key: value for key, value in facts.items() if value}


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return str(value) if isinstance(value, Path) else type(value).__name__


def describe(error: BaseException) -> dict[str, Any]:
    """What may be known of an exception: its types and stack, SQLSTATE and constraint; rarely its text."""
    facts: dict[str, Any] = {"type": _name(error), "stack": _stack(error.__traceback__)}
    if isinstance(error, Problem):
        facts["reason"] = error.reason
    elif isinstance(error, _TELLING):
        facts["text"] = redact(str(error))
    facts |= status.database_facts(error)
    causes: list[str] = []
    inner = error.__cause__ or error.__context__
    while inner is not None and len(causes) < 5:
        causes.append(_name(inner))
        inner = inner.__cause__ or inner.__context__
    if causes:
        facts["causes"] = causes
    return facts


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _stack(frames: TracebackType | None) -> list[str]:
    found = traceback.extract_tb(frames)
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in found[-20:]]


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(path.parts[-2:])


def set_up(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Sends this process's logs to `stream` (default: standard error), from `level` on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
