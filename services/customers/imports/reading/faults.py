"""Why a file as a whole is refused, before any of its rows is taken."""

from libs.problems import InvalidArgument


class FileFault(InvalidArgument):
    """The file cannot be read; nothing of it was taken."""

    reason = "FILE_NOT_READABLE"
    message = "The file is no CSV, Excel (.xlsx), JSON or JSON Lines file."


class FileEmpty(FileFault):
    """There is nothing in the file."""

    reason = "FILE_EMPTY"
    message = "The file is empty."


class FileHeaderOnly(FileFault):
    """The file has a header and no rows."""

    reason = "FILE_HEADER_ONLY"
    message = "The file has a header and no rows."


class FileNotReadable(FileFault):
    """The file is of another kind: an image, an old Excel file, an archive."""


class FileEncoding(FileFault):
    """The file's text cannot be decoded, by the encoding that was named or by any known one."""

    reason = "FILE_ENCODING"
    message = "The encoding of the file cannot be found out; save it as UTF-8."


class FileTooWide(FileFault):
    """The file has more columns than any such file has."""

    reason = "FILE_TOO_WIDE"
    message = "The file has too many columns."


class FileBomb(FileFault):
    """The file unpacks to more than is taken, or describes itself without end."""

    reason = "FILE_BOMB"
    message = "The file unpacks to far more than its size."


class FileDamaged(FileFault):
    """The file is cut off or broken inside."""

    reason = "FILE_DAMAGED"
    message = "The file is damaged or was cut off."


class FileEncrypted(FileFault):
    """The file is protected by a password."""

    reason = "FILE_ENCRYPTED"
    message = "The file is protected by a password; save it without."


class SheetMissing(FileFault):
    """The workbook has no sheet of rows, or none of the name that was given."""

    reason = "FILE_SHEET_MISSING"
    message = "The workbook has no such sheet."
