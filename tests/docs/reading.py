"""The examples of a document: commands, and the output that it promises for each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.config import ROOT

RUN = ("sh", "python")
OUTPUT = ("json", "text")
# Comments in a document that a reader does not see: before a block that is not run, and before one whose output
# comes a moment later, because events have to arrive first.
NOT_RUN, EVENTUALLY = "<!-- not run", "<!-- eventually"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?"
_VARYING = re.compile(f"(?P<id>{_UUID})|(?P<instant>{_INSTANT})|(?P<rest>…)")


@dataclass(frozen=True, slots=True)
class Example:
    """A block to run. `output` None: the document shows none, and the commands need only succeed."""

    place: str
    language: str
    text: str
    output: str | None
    eventually: bool


def document(name: str) -> str:
    """The text of a document of this repository."""
    return (ROOT / name).read_text()


def documents() -> list[Path]:
    """Every document of this repository."""
    folders = [ROOT, *(ROOT / name for name in ("docs", "docs/decisions")), *(ROOT / "services").iterdir()]
    return sorted(path for folder in folders for path in folder.glob("*.md"))


def examples(name: str) -> Iterator[Example]:
    """The blocks of a document that are to be run, in order.

    An output is the block of JSON or text right after one. A block of another kind, or an output without
    commands, is an error of the document unless a comment says that it is not run.
    """
    text = document(name)
    found = list(_FENCE.finditer(text))
    for i, fence in enumerate(found):
        before = text[found[i - 1].end() if i else 0 : fence.start()]
        language, place = fence[1], f"{name}:{text.count(chr(10), 0, fence.start()) + 1}"
        last_line = before.strip().rpartition("\n")[2]
        if last_line.startswith(NOT_RUN):
            continue
        if language in OUTPUT:
            follows = i > 0 and found[i - 1][1] in RUN and not before.strip()
            assert follows, f"{place}: an output that no command makes"
            continue
        assert language in RUN, f"{place}: a block of no kind that can be run"
        after = found[i + 1] if i + 1 < len(found) else None
        shown = after is not None and after[1] in OUTPUT and not text[fence.end() : after.start()].strip()
        output = after[2] if after is not None and shown else None
        yield Example(place, language, fence[2], output, last_line.startswith(EVENTUALLY))


def agrees(promised: str, actual: str) -> bool:
    """True if an output is as promised: ids and instants may differ, `…` stands for anything it left out.

    Commas at the ends of lines do not count: facts of a refusal have no order, and any may be the last.
    """
    pattern = ""
    for line in promised.strip().splitlines():
        pattern += r"(?:[^\n]*\n)*?" if line.strip() == "…" else _pattern(line.rstrip(", ")) + r",?[ ]*\n"
    return re.fullmatch(pattern, actual.strip() + "\n") is not None


def _pattern(line: str) -> str:
    found, at = "", 0
    for varying in _VARYING.finditer(line):
        kind = {"id": _UUID, "instant": _INSTANT, "rest": r"[^\n]*"}[str(varying.lastgroup)]
        found += re.escape(line[at : varying.start()]) + kind
        at = varying.end()
    return found + re.escape(line[at:])
