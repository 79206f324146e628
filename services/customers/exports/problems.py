"""The refusals of exports."""

from libs.problems import Code, NotFound, Problem, Unauthenticated


class ExportNotFound(NotFound):
    """There is no such export, or none that this caller may read."""

    reason = "EXPORT_NOT_FOUND"
    message = "There is no such export."


class ExportNotReady(Problem):
    """The export has no file: it is not ready, was an answer, failed or was cancelled."""

    code = Code.FAILED_PRECONDITION
    reason = "EXPORT_NOT_READY"
    message = "The export has no file."


class ExportTooWide(Problem):
    """More customers may match the query than a search looks at."""

    code = Code.FAILED_PRECONDITION
    reason = "EXPORT_TOO_WIDE"
    message = (
        "More customers may match the query than a search looks at; make it narrower, or use filters alone."
    )


class SheetTooLong(Problem):
    """A sheet of Excel has 1,048,576 rows."""

    code = Code.FAILED_PRECONDITION
    reason = "SHEET_TOO_LONG"
    message = "A sheet holds at most 1,048,575 customers; narrow the search, or export CSV or JSON Lines."


class WorkbookTooLarge(Problem):
    """A sheet above 4 GiB opens nowhere."""

    code = Code.FAILED_PRECONDITION
    reason = "WORKBOOK_TOO_LARGE"
    message = "The workbook would be above 4 GiB; choose fewer columns, or export CSV or JSON Lines."


class LinkInvalid(Unauthenticated):
    """The link is none that was given for this export."""

    reason = "LINK_INVALID"
    message = "The link is not valid."


class LinkExpired(Unauthenticated):
    """The link's time is over."""

    reason = "LINK_EXPIRED"
    message = "The link has expired; get the export again for a new one."
