"""multipart/form-data as it arrives: some fields, then one file, of which nothing is kept.

By the library `multipart`, whose parser is given bytes and gives bytes; Starlette's (python-multipart) writes files to
a disk in clear text.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from libs.problems import InvalidArgument
from services.gateway.problems import MalformedForm

MULTIPART = "multipart/form-data"
MAX_FIELDS = 100
MAX_FIELD_BYTES = 64 << 10  # of all fields together


@dataclass(frozen=True, slots=True)
class FilePart:
    """What a form says about its file, and the fields that came before it."""

    fields: list[tuple[str, str]]
    file_name: str
    content_type: str


def boundary_of(headers: Mapping[bytes, bytes]) -> str | None:
    """What separates the parts of a form; None if the body is none. Raises MalformedForm without a boundary."""
    kind, options = parse_options_header(headers.get(b"content-type", b"").decode("latin-1"))
    if kind.lower() != MULTIPART:
        return None
    boundary: str = options.get("boundary", "")
    if not 0 < len(boundary) <= 70 or not boundary.isascii() or not boundary.isprintable():
        raise MalformedForm("The form has no boundary.")
    return boundary


class Form:
    """One form. First `begin`, then `content`, to their ends. Both raise MalformedForm, InvalidArgument."""

    def __init__(self, boundary: str, parts: AsyncIterator[bytes]) -> None:
        parser = PushMultipartParser(boundary, max_segment_count=MAX_FIELDS + 2)
        self._events = _events(parser, parts)

    async def begin(self) -> FilePart:
        """Reads up to the file."""
        fields: list[tuple[str, str]] = []
        name: str | None = None
        value = bytearray()
        size = 0
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.filename is not None:
                    return FilePart(fields, _base_name(event.filename), event.content_type or "")
                name = event.name or ""
                value.clear()
            elif event is not None:
                size += len(event)
                if size > MAX_FIELD_BYTES:
                    raise MalformedForm(f"The fields of the form are over {MAX_FIELD_BYTES} bytes.")
                value += event
            elif name is not None:
                fields.append((name, _text(name, value)))
        raise InvalidArgument.of("file", "The form has no part with a file name.", "FILE_MISSING")

    async def content(self) -> AsyncIterator[bytes]:
        """The file, and a look at what follows it."""
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.filename is not None:
                    raise InvalidArgument.of("file", "One file at a time.", "FILE_TWICE")
                raise InvalidArgument.of(event.name or "", "Fields come before the file.", "FIELD_AFTER_FILE")
            if event is not None:
                yield event


async def _events(
    parser: PushMultipartParser, parts: AsyncIterator[bytes]
) -> AsyncIterator[MultipartSegment | bytes | None]:
    """Segment, its bytes, None; and so on. A form that is cut short fails at its end."""
    try:
        async for part in parts:
            for event in parser.parse(part):
                yield event if event is None or isinstance(event, MultipartSegment) else bytes(event)
        parser.close()
    except MultipartError as error:
        raise MalformedForm(f"The form cannot be read: {error}.") from None


def _text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidArgument.of(name, "The field is not valid UTF-8.", "MALFORMED_TEXT") from None


def _base_name(name: str) -> str:
    """Without the folders that some browsers send along."""
    return name.replace("\\", "/").rpartition("/")[2][-255:]
