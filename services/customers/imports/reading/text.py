"""Bytes to lines: a stream is decoded and cut at line ends, and no line is held beyond a limit."""

import codecs
import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from services.customers.imports.reading.faults import FileEncoding

CHUNK = 256 * 1024
MAX_LINE = 1_000_000  # characters of one line that are kept; the rest of a longer one is passed over
BAD = "\udcff"  # stands for bytes that are no text; a lone surrogate comes from no valid text

# By the names that people see and set. Each decodes strictly to text, and none runs anything.
ENCODINGS = (
    *("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"),
    *(
        "cp1252",
        "latin-1",
        "iso8859-15",
        "cp1250",
        "cp1251",
        "cp1253",
        "cp1254",
        "cp1255",
        "cp1256",
        "cp1257",
    ),
    *(
        "iso8859-2",
        "iso8859-5",
        "iso8859-7",
        "iso8859-9",
        "koi8-r",
        "koi8-u",
        "cp437",
        "cp850",
        "cp852",
        "cp866",
    ),
    *(
        "mac_roman",
        "cp932",
        "shift_jis",
        "euc_jp",
        "iso2022_jp",
        "gb18030",
        "big5",
        "euc_kr",
        "cp949",
        "ascii",
    ),
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")


def _bad(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return BAD, error.end


codecs.register_error("regulars-bad", _bad)


def decoder(encoding: str) -> codecs.IncrementalDecoder:
    """A decoder that puts BAD for what is no text. Raises FileEncoding for a name that is not in ENCODINGS."""
    if encoding not in ENCODINGS:
        raise FileEncoding(f"There is no encoding of this name; known are {', '.join(ENCODINGS)}.")
    return codecs.getincrementaldecoder(encoding)("regulars-bad")


def has_bad(text: str) -> bool:
    """True if bytes that are no text came in here."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class Text:
    """The decoded text of a file in chunks. `has_bad` becomes True with the first bytes that are no text."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        file.seek(0)
        self._file, self._decoder = file, decoder(encoding)
        self.has_bad = False

    def __iter__(self) -> Iterator[str]:
        first = True
        while True:
            raw = self._file.read(CHUNK)
            text = self._decoder.decode(raw, final=not raw)
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            if text and not self.has_bad:
                self.has_bad = has_bad(text)
            if text:
                yield text
            if not raw:
                return


class Lines:
    """The lines of a text with their ends, one by one; some may be pushed back.

    A line that is longer than MAX_LINE comes cut to MAX_LINE + 1 characters.
    """

    def __init__(self, text: Text) -> None:
        self.text = text
        self._back: deque[str] = deque()
        self._lines = self._cut()

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        return self._back.popleft() if self._back else next(self._lines)

    def push_back(self, lines: list[str]) -> None:
        """Gives lines back: they come next."""
        self._back.extendleft(reversed(lines))

    def _cut(self) -> Iterator[str]:
        rest = ""
        for chunk in self.text:
            text = rest + chunk
            # A \r at the end is perhaps half of a \r\n.
            end = max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
            for line in _LINE.findall(text[:end]):
                yield line if len(line) <= MAX_LINE else line[: MAX_LINE + 1]
            rest = text[end:]
            if len(rest) > MAX_LINE + 2:
                rest = rest[: MAX_LINE + 1] + rest[-1]
        if rest:
            yield rest[: MAX_LINE + 1]
