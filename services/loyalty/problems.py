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


class OverrideNotFound(NotFound):
    """The member's tier is not overridden."""

    reason = "OVERRIDE_NOT_FOUND"
    message = "The member's tier is not overridden."


class TransactionNotFound(NotFound):
    """There is no such transaction, or none that this caller may see."""

    reason = "TRANSACTION_NOT_FOUND"
    message = "There is no such transaction."


class ReportNotFound(NotFound):
    """There is no report of this name."""

    reason = "REPORT_NOT_FOUND"
    message = "There is no such report."


class HoldNotFound(NotFound):
    """There is no such hold, or none that this caller may see."""

    reason = "HOLD_NOT_FOUND"
    message = "There is no such hold."


class RewardNotFound(NotFound):
    """There is no such reward, or none that this caller may see."""

    reason = "REWARD_NOT_FOUND"
    message = "There is no such reward."


class RedemptionNotFound(NotFound):
    """There is no such code, or none that this caller may see."""

    reason = "REDEMPTION_NOT_FOUND"
    message = "There is no such code."


class CodePoolNotFound(NotFound):
    """There is no such pool of codes, or none that this caller may see."""

    reason = "CODE_POOL_NOT_FOUND"
    message = "There is no such pool of codes."


class ReferralNotFound(NotFound):
    """There is no such referral, or none that this caller may see."""

    reason = "REFERRAL_NOT_FOUND"
    message = "There is no such referral."


class HouseholdNotFound(NotFound):
    """There is no such household, or none that this caller may see."""

    reason = "HOUSEHOLD_NOT_FOUND"
    message = "There is no such household."


class HouseholdMemberNotFound(NotFound):
    """The customer is not in the household."""

    reason = "HOUSEHOLD_MEMBER_NOT_FOUND"
    message = "The customer is not in this household."


class HouseholdInvitationNotFound(NotFound):
    """There is no such invitation, or it is not good any more."""

    reason = "HOUSEHOLD_INVITATION_NOT_FOUND"
    message = "There is no such invitation."


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
    """More points than can be spent, with the household's help. Metadata: requested, spendable, missing."""

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


class ImportUndone(_Refused):
    """The taking back of the import has begun: nothing more comes in by it."""

    reason = "IMPORT_UNDONE"
    message = "The import is taken back: no more of its rows are taken."


class OrderCancelled(_Refused):
    """What is spent on a cancelled order would be lost. Metadata: order_id."""

    reason = "ORDER_CANCELLED"
    message = "The order was cancelled: no points can be spent on it."


class NotReversible(_Refused):
    """Only redemptions are taken back."""

    reason = "NOT_REVERSIBLE"
    message = "Only a redemption can be taken back."


class TransferLimitReached(_Refused):
    """The member has given away as much as one may in a month. Metadata: limit, given, requested."""

    reason = "TRANSFER_LIMIT_REACHED"
    message = "The member may not give away as many points in a month."


class TransfersNotAllowed(_Refused):
    """The program keeps points where they are."""

    reason = "TRANSFERS_NOT_ALLOWED"
    message = "The program does not let members give points away."


class RewardInactive(_Refused):
    """Nobody redeems it."""

    reason = "REWARD_INACTIVE"
    message = "The reward is not active."


class RewardNotYetValid(_Refused):
    """Its time has not come. Metadata: valid_from."""

    reason = "REWARD_NOT_YET_VALID"
    message = "The reward cannot be redeemed yet."


class RewardNoLongerValid(_Refused):
    """Its time is over. Metadata: valid_until."""

    reason = "REWARD_NO_LONGER_VALID"
    message = "The reward cannot be redeemed any more."


class TierNotEligible(_Refused):
    """It is for other tiers. Metadata: tier, tiers."""

    reason = "TIER_NOT_ELIGIBLE"
    message = "The reward is for members of other tiers."


class SegmentNotEligible(_Refused):
    """It is for segments, and the member is in none of them."""

    reason = "SEGMENT_NOT_ELIGIBLE"
    message = "The reward is for segments that the member is not in."


class LimitReached(_Refused):
    """The member has had it as often as one may. Metadata: limit, redeemed."""

    reason = "LIMIT_REACHED"
    message = "The member has redeemed this reward as often as one may."


class OutOfStock(_Refused):
    """Nothing is left of its stock, or of the pool of its codes."""

    reason = "OUT_OF_STOCK"
    message = "The reward is out of stock."


class StockTaken(_Refused):
    """More are redeemed than there would be. Metadata: taken."""

    reason = "STOCK_TAKEN"
    message = "More of it are redeemed than there would be."


class RedemptionUsed(_Refused):
    """The code was used before. Metadata: used_at, place."""

    reason = "REDEMPTION_USED"
    message = "The code was used before."


class RedemptionCancelled(_Refused):
    """The code was cancelled. Metadata: cancelled_at."""

    reason = "REDEMPTION_CANCELLED"
    message = "The code was cancelled."


class RedemptionExpired(_Refused):
    """The time of the code ran out. Metadata: expired_at."""

    reason = "REDEMPTION_EXPIRED"
    message = "The time of the code ran out."


class TooManyRewards(_Refused):
    """A program has only so many rewards."""

    reason = "TOO_MANY_REWARDS"
    message = "The program has as many rewards as it can have."


class TooManyCodePools(_Refused):
    """A business has only so many pools."""

    reason = "TOO_MANY_CODE_POOLS"
    message = "The business has as many pools of codes as it can have."


class ReferralsNotEnabled(_Refused):
    """The program has no referrals."""

    reason = "REFERRALS_NOT_ENABLED"
    message = "The program has no referrals."


class TooManyInvitations(_Refused):
    """A member has only so many invitations that nobody has used. Metadata: limit."""

    reason = "TOO_MANY_INVITATIONS"
    message = "The member has as many open invitations as one can have."


class ReferralNotFlagged(_Refused):
    """Nothing about it is to be judged. Metadata: state."""

    reason = "REFERRAL_NOT_FLAGGED"
    message = "The referral is not flagged."


class PoolingNotAllowed(_Refused):
    """The program keeps points apart."""

    reason = "POOLING_NOT_ALLOWED"
    message = "The program does not let members pool their points."


class AlreadyInHousehold(_Refused):
    """A member is in one household of a program."""

    reason = "ALREADY_IN_HOUSEHOLD"
    message = "The member is in a household of this program already."


class HouseholdFull(_Refused):
    """There are as many in it, or invited, as there may be. Metadata: largest."""

    reason = "HOUSEHOLD_FULL"
    message = "The household has as many members as it can have."


class HouseholdClosed(_Refused):
    """The last member has left it."""

    reason = "HOUSEHOLD_CLOSED"
    message = "The household is closed."


PROBLEMS: Mapping[str, Callable[[], Problem]] = {"household_members_one_key": AlreadyInHousehold}
