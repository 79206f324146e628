"""Downloads: a stream of google.api.HttpBody, whose file name goes ahead of the first message."""

from urllib.parse import quote

from libs.rpc import Context

DISPOSITION_KEY = "content-disposition"


async def named(context: Context, file_name: str) -> None:
    """Tells the caller the file's name, before the first message; over REST it is what the file is saved as."""
    await context.send_initial_metadata(((DISPOSITION_KEY, disposition(file_name)),))


def disposition(file_name: str) -> str:
    """The header for any name (RFC 6266): plain for everybody, and as it is for those who know better."""
    name = "".join(c if c.isprintable() and c not in '/\\"' else "_" for c in file_name)[:150] or "file"
    plain = "".join(c if c.isascii() else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
