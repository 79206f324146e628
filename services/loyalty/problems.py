"""The refusals of the loyalty service, and which constraint means which."""

from collections.abc import Callable, Mapping

from libs.problems import Code, NotFound, Problem


class MembershipNotFound(NotFound):
    """The customer is no member of any program that this caller may see."""

    reason = "MEMBERSHIP_NOT_FOUND"
    message = "The customer is no member of this program."


class ProgramNotFound(NotFound):
    """There is no such program, or none that this caller may see."""

    reason = "PROGRAM_NOT_FOUND"
    message = "There is no such program."


class RuleNotFound(NotFound):
    """There is no such earning rule, or none that this caller may see."""

    reason = "RULE_NOT_FOUND"
    message = "There is no such rule."


class TierNotFound(NotFound):
    """The program has no tier of this name."""

    reason = "TIER_NOT_FOUND"
    message = "The program has no such tier."


class TransactionNotFound(NotFound):
    """There is no such transaction, or none that this caller may see."""

    reason = "TRANSACTION_NOT_FOUND"
    message = "There is no such transaction."


class HoldNotFound(NotFound):
    """There is no such hold, or none that this caller may see."""

    reason = "HOLD_NOT_FOUND"
    message = "There is no such hold."


class _Refused(Problem):
    code = Code.FAILED_PRECONDITION


class ProgramInactive(_Refused):
    """Nothing is earned or redeemed in this program."""

    reason = "PROGRAM_INACTIVE"
    message = "The program is not active."


class TooManyPrograms(_Refused):
    """A business has only so many programs."""

    reason = "TOO_MANY_PROGRAMS"
    message = "The business has as many programs as it can have."


class TooManyRules(_Refused):
    """A program has only so many rules."""

    reason = "TOO_MANY_RULES"
    message = "The program has as many rules as it can have."


class MembershipFrozen(_Refused):
    """A blocked or deleted member earns and redeems nothing."""

    reason = "MEMBERSHIP_FROZEN"
    message = "The member is blocked or deleted: the points are frozen."


class InsufficientPoints(_Refused):
    """More points than can be spent. Metadata: requested, spendable, missing."""

    reason = "INSUFFICIENT_POINTS"
    message = "There are not as many points to spend."


class PointsOutOfRange(_Refused):
    """No account counts beyond this."""

    reason = "POINTS_OUT_OF_RANGE"
    message = "No account holds as many points."


class HoldNotOpen(_Refused):
    """The hold was captured, released, or has lapsed."""

    reason = "HOLD_NOT_OPEN"
    message = "The hold is not open any more."


class NotReversible(_Refused):
    """Only redemptions are taken back."""

    reason = "NOT_REVERSIBLE"
    message = "Only a redemption can be taken back."


class TransfersNotAllowed(_Refused):
    """The program keeps points where they are."""

    reason = "TRANSFERS_NOT_ALLOWED"
    message = "The program does not let members give points away."


PROBLEMS: Mapping[str, Callable[[], Problem]] = {}
