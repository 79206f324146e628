"""Messages about opening balances to values and back."""

from collections.abc import Iterable
from uuid import UUID

from libs.instants import instant
from libs.problems import Faults
from regulars.loyalty.v1 import balances_pb2 as pb
from services.loyalty.balances.rules import Result, Told, Undone


def told(request: pb.ImportBalancesRequest) -> list[Told]:
    """The rows of a request, in the order of their numbers. Raises InvalidArgument if one comes twice."""
    faults, found = Faults(), dict[int, Told]()
    for place, each in enumerate(request.balances):
        if each.row in found:
            faults.add(f"balances[{place}].row", "each row may come once", "DUPLICATE")
        found[each.row] = Told(
            row=each.row,
            customer_id=UUID(each.customer_id),
            program=each.program.strip(),
            points=each.points,
            expires_at=instant(each.expires_at) if each.HasField("expires_at") else None,
            earned_at=instant(each.earned_at) if each.HasField("earned_at") else None,
            lifetime_points=each.lifetime_points,
            reason=each.reason.strip(),
            reference=each.reference.strip(),
        )
    faults.refuse()
    return [found[row] for row in sorted(found)]


def results(request: pb.ImportBalancesRequest, found: Iterable[Result]) -> Iterable[pb.ImportBalanceResult]:
    """What became of the rows, in the order of the request."""
    by_row = {each.row: each for each in found}
    for balance in request.balances:
        each = by_row[balance.row]
        yield pb.ImportBalanceResult(
            row=each.row,
            outcome=each.outcome,  # type: ignore[arg-type]  # the number of the enum
            field=each.field,
            reason=each.reason,
            expected=each.expected,
            transaction_id=str(each.entry_id or ""),
        )


def undone(each: Undone) -> pb.UndoneBalance:
    """The message of a row that was taken back."""
    return pb.UndoneBalance(
        row=each.row,
        customer_id=str(each.customer_id),
        points=each.taken,
        spent_points=each.spent,
        expired_points=each.lapsed,
    )
