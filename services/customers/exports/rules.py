"""What makes a text safe in a spreadsheet."""

import re

# What begins a formula in a spreadsheet, in its full-width forms too; and what is passed over before it: white
# space, quotes, and marks that nobody sees.
_BEGINS = r"=+\-@＝＋－＠"
_BEFORE = r"\s'\"\u00ad\u200b-\u200f\u2060\ufeff"
# At the beginning of a text, and after what may end a cell where a file is opened with another separator: Excel in
# German cuts at semicolons and knows no quotes in the middle of a cell.
_RISKY = re.compile(rf"(^|[;\t\r\n])(?=[{_BEFORE}]*[{_BEGINS}])|^(?=[\t\r\n])")
# A number with its sign, as phones in E.164 are: a spreadsheet takes it for that number, and computes nothing.
_NUMBER = re.compile(r"[+\-]?\d+(?:[.,]\d+)?")
# Where none of these is there is nothing to look for.
_MAYBE = re.compile(rf"[{_BEGINS}\t\r\n]")


def risky(text: str) -> bool:
    """True if a spreadsheet may take the text, or a part of it, for a formula."""
    return bool(_MAYBE.search(text)) and bool(_RISKY.search(text)) and not _NUMBER.fullmatch(text)


def guarded(text: str) -> str:
    """The text with an apostrophe wherever a formula could begin; numbers and phones in E.164 stay as they are.

    A text that has the apostrophe already gets another one, so that taking one away gives the text back. Source:
    OWASP, CSV Injection.
    """
    return _RISKY.sub(r"\1'", text) if risky(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given, if the apostrophe stands at the beginning."""
    return text[1:] if text[:1] == "'" and guarded(text[1:])[:1] == "'" else text
