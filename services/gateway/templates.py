"""Path templates of google.api.http: `/api/v1/customers/{customer.id}/files/{path=**}:verb`."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from libs.problems import InvalidArgument

ANY, REST = "*", "**"
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_.]*)(?:=([^{}]+))?\}")
_VERB = re.compile(r":([A-Za-z][A-Za-z0-9_-]*)$")


class TemplateError(ValueError):
    """A path template that does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class Variable:
    """Where a variable's value lies among the path's segments; `end` is None for `**`."""

    field: str
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Template:
    """One path template. `steps` are its segments: literal, `*` or `**`; `verb` is what follows the colon."""

    text: str
    steps: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str = ""

    @classmethod
    def parse(cls, text: str) -> "Template":
        """The template that `text` writes. Raises TemplateError."""
        if not text.startswith("/"):
            raise TemplateError(f"{text}: must begin with a slash")
        found = _VERB.search(text)
        verb = found[1] if found else ""
        rest = text[1 : -len(verb) - 1] if verb else text[1:]
        steps: list[str] = []
        variables: list[Variable] = []
        while True:
            variable = _VARIABLE.match(rest)
            if variable is None:
                step, slash, rest = rest.partition("/")
                steps.append(step)
            else:
                inner = (variable[2] or ANY).split("/")
                end = None if inner[-1] == REST else len(steps) + len(inner)
                variables.append(Variable(variable[1], len(steps), end))
                steps.extend(inner)
                slash, rest = rest[variable.end() : variable.end() + 1], rest[variable.end() + 1 :]
            if not slash:
                break
        if (
            REST in steps[:-1]
            or any(not step or set(step) & set("{}=:") for step in steps)
            or slash not in "/"
        ):
            raise TemplateError(f"{text}: is no path template")
        return cls(text, tuple(steps), tuple(variables), verb)

    def shape(self) -> str:
        """The template without its variables' names: equal shapes match the same paths."""
        return "/" + "/".join(self.steps) + (f":{self.verb}" if self.verb else "")

    def values(self, segments: list[str]) -> list[str]:
        """The variables' values in a path that matches, decoded. Raises MalformedPath."""
        if self.verb:
            segments = [*segments[:-1], segments[-1][: -len(self.verb) - 1]]
        return [
            _decoded(segments[v.start])
            if v.end == v.start + 1
            else "/".join(_decoded(segment) for segment in segments[v.start : v.end])
            for v in self.variables
        ]


class MalformedPath(InvalidArgument):
    """The path has escapes that are no UTF-8."""

    reason = "MALFORMED_PATH"
    message = "The path is not valid UTF-8."


def _decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise MalformedPath from None
