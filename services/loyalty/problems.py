"""The refusals of the loyalty service, and which constraint means which."""

from collections.abc import Callable, Mapping

from libs.problems import NotFound, Problem


class MembershipNotFound(NotFound):
    """The customer is no member of any program that this caller may see."""

    reason = "MEMBERSHIP_NOT_FOUND"
    message = "The customer is no member of this program."


PROBLEMS: Mapping[str, Callable[[], Problem]] = {}
