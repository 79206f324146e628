"""The gateway's own refusals: what is wrong with the HTTP around a request."""

from typing import ClassVar

from libs.problems import Code, Problem


class HttpProblem(Problem):
    """A refusal that HTTP has a status of its own for."""

    code = Code.INVALID_ARGUMENT
    status: ClassVar[int] = 400


class NoSuchPath(HttpProblem):
    """No RPC has this path."""

    code = Code.NOT_FOUND
    status = 404
    reason = "NO_SUCH_PATH"
    message = "There is nothing at this path."


class MethodNotAllowed(HttpProblem):
    """The path is known, and not with this method (metadata `allow`)."""

    code = Code.UNIMPLEMENTED
    status = 405
    reason = "METHOD_NOT_ALLOWED"
    message = "The path does not have this method."


class NotAcceptable(HttpProblem):
    """The client accepts none of the types that the answer can have (metadata `offered`)."""

    status = 406
    reason = "NOT_ACCEPTABLE"
    message = "None of the accepted media types is offered."


class BodyTimeout(HttpProblem):
    """The body did not arrive in time."""

    code = Code.DEADLINE_EXCEEDED
    status = 408
    reason = "BODY_TIMEOUT"
    message = "The body took too long."


class BodyTooLarge(HttpProblem):
    """The body is over the limit (metadata `limit_bytes`)."""

    status = 413
    reason = "BODY_TOO_LARGE"
    message = "The body is too large."


class UnsupportedMediaType(HttpProblem):
    """The body has another type, or is compressed (metadata `accepted`)."""

    status = 415
    reason = "UNSUPPORTED_MEDIA_TYPE"
    message = "The body must be application/json in UTF-8, not compressed."


class MalformedForm(HttpProblem):
    """A body of multipart/form-data that cannot be read."""

    reason = "MALFORMED_FORM"
    message = "The form cannot be read."


class UnexpectedBody(HttpProblem):
    """A body where none has a meaning."""

    reason = "UNEXPECTED_BODY"
    message = "This call takes no body."


class MalformedHeader(HttpProblem):
    """A header that cannot be read (metadata `header`)."""

    reason = "MALFORMED_HEADER"
    message = "A header is malformed."
