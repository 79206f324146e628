"""Order messages to values and back; everything that is wrong with a record is found in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs import formats, validation
from libs.formats import Wrong
from libs.instants import instant, stamp
from libs.problems import Faults, InvalidArgument, Problem, Violation
from regulars.customers.v1 import orders_pb2 as pb
from regulars.type.v1.money_pb2 import Money
from services.customers.orders.rules import Told
from services.customers.profiles.rules import external_key

MOST_MINOR = 10**15
MAX_VIOLATIONS = 50
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = timedelta(days=1)
_OUTPUT_ONLY = (
    "id",
    "business_id",
    "completed_at",
    "fulfilled_at",
    "delivered_at",
    "created_at",
    "updated_at",
    "version",
    "masked_fields",
)
_SUMS = ("subtotal", "discount", "shipping", "tax", "total", "refunded")
_ADDRESSES = ("shipping_address", "billing_address")
_ADDRESS_TEXTS = ("recipient", "city", "state", "postal_code", "country", "phone")


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who ordered: an id, or what finds the customer; contact data normalised, and as it was given for a guest."""

    customer_id: UUID | None = None
    identifiers: tuple[tuple[str, str], ...] = ()
    email: str = ""
    phone: str = ""
    first_name: str = ""
    last_name: str = ""


@dataclass(frozen=True, slots=True)
class ToldOrder:
    """One record of an order. `external_customer` is the buyer's id in the source; `private` is for sealing."""

    told: Told
    buyer: Buyer
    external_customer: str = ""
    private: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """(source, external id)."""
        return self.told.source, self.told.external_id


@dataclass(frozen=True, slots=True)
class ToldRefund:
    """One record of a refund: all that was refunded so far."""

    source: str
    external_id: str
    total_minor: int

    @property
    def key(self) -> tuple[str, str]:
        """(source, external id)."""
        return self.source, self.external_id


Record = ToldOrder | ToldRefund


@dataclass(frozen=True, slots=True)
class House:
    """What a record is read by: the business, its currency and country, the instant, the key of fingerprints."""

    business_id: UUID
    currency: str
    country: str
    now: datetime
    content_key: bytes


def record(message: pb.OrderRecord, house: House) -> Record:
    """The order or refund of a record. Raises InvalidArgument with everything that is wrong."""
    kind = message.WhichOneof("record")
    if kind is None:
        raise InvalidArgument.of("", "must be an order or a refund", "REQUIRED")
    inner = message.order if kind == "order" else message.refund
    faults = Faults()
    try:
        validation.check(inner)
    except InvalidArgument as problem:
        faults.found += [replace(each, field=_join(kind, each.field)) for each in problem.violations]
    wrong = {each.field for each in faults.found}
    found: Record = (
        told_order(message.order, house, faults, wrong)
        if kind == "order"
        else _refund(message.refund, house, faults)
    )
    faults.refuse()
    return found


def _join(kind: str, path: str) -> str:
    return f"{kind}.{path}" if path else kind


def _refund(message: pb.OrderRefund, house: House, faults: Faults) -> ToldRefund:
    total = _minor(message.refunded_total, "refund.refunded_total", house, faults)
    external_id = message.external_id.strip()
    if not external_id and message.external_id:
        faults.add("refund.external_id", "must not be blank", "REQUIRED")
    return ToldRefund(message.source or "manual", external_id, total)


def told_order(message: pb.Order, house: House, faults: Faults, wrong: Iterable[str]) -> ToldOrder:
    """The order of a message that keeps the contract but for the fields in `wrong`; notes the rest in `faults`."""
    source, external_id = message.source or "manual", message.external_id.strip()
    if not external_id:
        faults.add("order.external_id", "is required", "REQUIRED")
    if message.business_id and message.business_id != str(house.business_id):
        faults.add("order.business_id", "must be the business of the request", "BUSINESS_MISMATCH")
    if message.currency not in {"", house.currency}:
        faults.add("order.currency", f"must be {house.currency}", "CURRENCY_MISMATCH")
    placed_at = _EARLIEST
    if message.HasField("placed_at") and "order.placed_at" not in wrong:
        placed_at = instant(message.placed_at)
        if not _EARLIEST <= placed_at <= house.now + _LATEST:
            faults.add("order.placed_at", "must be from 1970 to a day from now", "TIME_RANGE")
    items = [_item(item, f"order.items[{i}]", house, faults) for i, item in enumerate(message.items)]
    for i, tag in enumerate(message.tags):
        if not tag.strip():
            faults.add(f"order.tags[{i}]", "must not be blank", "REQUIRED")
    told = Told(
        source=source,
        external_id=external_id,
        revision=message.revision or 1,
        content=_content(message, house.content_key),
        status=int(message.status),
        placed_at=placed_at,
        channel=message.channel.strip(),
        store=message.store.strip(),
        items=items,
        quantity=sum(int(item["quantity"]) for item in items),
        tax_included=message.tax_included,
        tags=tuple(dict.fromkeys(tag.strip() for tag in message.tags)),
        payments=[
            _payment(each, f"order.payments[{i}]", house, faults) for i, each in enumerate(message.payments)
        ],
        deliveries=[_delivery(each) for each in message.deliveries],
        **_sums(message, items, house, faults),
    )
    customer = message.customer
    return ToldOrder(
        told,
        _buyer(message, source, house, faults, wrong),
        external_customer=customer.external_id.strip(),
        private=_private(message),
    )


def _sums(message: pb.Order, items: list[dict[str, Any]], house: House, faults: Faults) -> dict[str, int]:
    """The amounts of an order, those that were left out filled in; they must add up."""
    found = len(faults.found)
    given = {
        name: _minor(getattr(message, name), f"order.{name}", house, faults)
        for name in _SUMS
        if message.HasField(name)  # type: ignore[arg-type]  # a name of its own
    }
    sums = {name: given.get(name, 0) for name in _SUMS}
    added = sums["shipping"] - sums["discount"] + (0 if message.tax_included else sums["tax"])
    of_items = sum(int(item["amount_minor"]) for item in items)
    if not items and "total" not in given and "subtotal" not in given:
        faults.add("order.total", "is required for an order without items", "REQUIRED")
    elif "subtotal" not in given:
        sums["subtotal"] = of_items if items else sums["total"] - added
    if "total" not in given:
        sums["total"] = sums["subtotal"] + added
    if len(faults.found) == found and not any(each.field.startswith("order.items") for each in faults.found):
        if items and sums["subtotal"] != of_items:
            faults.add("order.subtotal", f"must be what the items add up to, {of_items}", "SUM_MISMATCH")
        elif sums["subtotal"] < 0 or sums["total"] < 0:
            faults.add(
                "order.total", "must not be negative: the discounts are above the rest", "SUM_NEGATIVE"
            )
        elif max(sums["subtotal"], sums["total"]) > MOST_MINOR:
            faults.add("order.total", f"must be at most {MOST_MINOR}", "SUM_RANGE")
        elif sums["total"] != sums["subtotal"] + added:
            expected = sums["subtotal"] + added
            faults.add("order.total", f"must be what the parts add up to, {expected}", "SUM_MISMATCH")
        elif sums["refunded"] > sums["total"]:
            faults.add("order.refunded", "must be at most the total", "REFUND_ABOVE_TOTAL")
    return {f"{name}_minor": value for name, value in sums.items()}


def _item(message: pb.OrderItem, path: str, house: House, faults: Faults) -> dict[str, Any]:
    price = _minor(message.unit_price, f"{path}.unit_price", house, faults)
    discount = _minor(message.discount, f"{path}.discount", house, faults)
    amount = message.quantity * price - discount
    if amount < 0 <= message.quantity * price:
        faults.add(f"{path}.discount", "must be at most quantity × unit price", "SUM_NEGATIVE")
    elif amount > MOST_MINOR:
        faults.add(f"{path}.unit_price", f"must leave the line at most {MOST_MINOR}", "SUM_RANGE")
    texts = {name: getattr(message, name).strip() for name in ("sku", "name", "category", "brand")}
    return {name: text for name, text in texts.items() if text} | {
        "quantity": message.quantity,
        "unit_price_minor": price,
        "discount_minor": discount,
        "amount_minor": amount,
    }


def _payment(message: pb.OrderPayment, path: str, house: House, faults: Faults) -> dict[str, object]:
    return _known(
        method=message.method.strip(),
        status=int(message.status),
        amount_minor=_minor(message.amount, f"{path}.amount", house, faults),
        paid_at=_iso(message, "paid_at"),
    )


def _delivery(message: pb.OrderDelivery) -> dict[str, object]:
    times = {name: _iso(message, name) for name in ("shipped_at", "expected_at", "delivered_at")}
    return _known(carrier=message.carrier.strip(), **times)


def _known(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value not in ("", None)}


def _iso(message: Any, name: str) -> str:
    try:
        return instant(getattr(message, name)).isoformat() if message.HasField(name) else ""
    except OverflowError:  # noted as out of range before
        return ""


def _minor(money: Money, path: str, house: House, faults: Faults) -> int:
    if money.currency not in {"", house.currency}:
        faults.add(f"{path}.currency", f"must be {house.currency}", "CURRENCY_MISMATCH")
    if money.amount_minor < 0:
        faults.add(f"{path}.amount_minor", "must not be negative", "NEGATIVE")
    return money.amount_minor


def _buyer(message: pb.Order, source: str, house: House, faults: Faults, wrong: Iterable[str]) -> Buyer:
    customer, email, phone = message.customer, "", ""
    identifiers: list[tuple[str, str]] = []
    external_id = customer.external_id.strip()
    if external_id:
        identifiers.append(("external_id", external_key(house.business_id, source, external_id)))
    if customer.email.strip() and "order.customer.email" not in wrong:
        email = customer.email.strip()
        identifiers.append(("email", formats.email(email)))
    if customer.phone.strip() and "order.customer.phone" not in wrong:
        try:
            phone = formats.phone(customer.phone, house.country)
            identifiers.append(("phone", phone))
        except Wrong as fault:
            faults.add("order.customer.phone", str(fault), "FORMAT_PHONE")
    by_id = message.customer_id and "order.customer_id" not in wrong
    return Buyer(
        UUID(message.customer_id) if by_id else None,
        tuple(identifiers),
        email,
        phone,
        customer.first_name.strip(),
        customer.last_name.strip(),
    )


def _content(message: pb.Order, key: bytes) -> bytes:
    """A fingerprint of what a revision says, less what is only ever answered."""
    plain = pb.Order()
    plain.CopyFrom(message)
    for name in _OUTPUT_ONLY:
        plain.ClearField(name)  # type: ignore[arg-type]  # a name of its own
    for item in plain.items:
        item.ClearField("amount")
    return blake2b(plain.SerializeToString(deterministic=True), key=key, digest_size=16).digest()


def _private(message: pb.Order) -> dict[str, object]:
    """What of an order is sealed: addresses and tracking numbers."""
    found: dict[str, object] = {}
    for name in _ADDRESSES:
        if message.HasField(name):  # type: ignore[arg-type]
            address = getattr(message, name)
            found[name] = _known(**{text: getattr(address, text).strip() for text in _ADDRESS_TEXTS}) | {
                "street_lines": [line for line in address.street_lines if line.strip()]
            }
    tracking = [each.tracking_number.strip() for each in message.deliveries]
    if any(tracking):
        found["tracking"] = tracking
    return found


def result(outcome: int, row: Any, *, guest: bool = False) -> pb.RecordResult:
    """What became of a record, with the order as the rules keep it."""
    waiting = not row.told.status
    return pb.RecordResult(
        outcome=outcome,  # type: ignore[arg-type]  # the number of the enum
        order_id="" if waiting else str(row.order_id),
        customer_id=str(row.customer_id or ""),
        revision=0 if waiting else row.told.revision,
        guest_created=guest,
    )


def answer(result: pb.RecordResult | Problem, most: int = MAX_VIOLATIONS) -> pb.RecordResult:
    """The result of a record, also of one that was refused, with at most `most` violations."""
    if not isinstance(result, Problem):
        return result
    return pb.RecordResult(
        outcome=pb.RECORD_OUTCOME_REFUSED,
        error=pb.RecordError(
            code=result.code.value,
            reason=result.reason,
            message=result.message,
            violations=[_violation(each) for each in result.violations[: min(most, MAX_VIOLATIONS)]],
            violations_total=len(result.violations),
        ),
    )


def _violation(violation: Violation) -> pb.RecordViolation:
    return pb.RecordViolation(
        field=violation.field, reason=violation.reason, description=violation.description
    )


def order(row: Row[Any], currency: str, private: Mapping[str, Any] | None = None) -> pb.Order:
    """The message of a row; with addresses and tracking numbers if `private` is given."""

    def money(minor: int) -> Money:
        return Money(amount_minor=minor, currency=currency)

    message = pb.Order(
        id=str(row.order_id),
        business_id=str(row.business_id),
        customer_id=str(row.customer_id),
        source=row.source,
        external_id=row.external_id,
        revision=row.revision,
        status=row.status,
        placed_at=stamp(row.placed_at),
        channel=row.channel,
        store=row.store,
        currency=currency,
        items=[_item_message(item, money) for item in row.items],
        subtotal=money(row.subtotal_minor),
        discount=money(row.discount_minor),
        shipping=money(row.shipping_minor),
        tax=money(row.tax_minor),
        tax_included=row.tax_included,
        total=money(row.total_minor),
        refunded=money(row.refunded_minor),
        tags=row.tags,
        payments=[
            pb.OrderPayment(
                method=each.get("method", ""),
                status=each["status"],
                amount=money(each["amount_minor"]),
                paid_at=_stamp(each, "paid_at"),
            )
            for each in row.payments
        ],
        deliveries=[
            pb.OrderDelivery(
                carrier=each.get("carrier", ""),
                shipped_at=_stamp(each, "shipped_at"),
                expected_at=_stamp(each, "expected_at"),
                delivered_at=_stamp(each, "delivered_at"),
            )
            for each in row.deliveries
        ],
        completed_at=stamp(row.completed_at),
        fulfilled_at=stamp(row.fulfilled_at),
        delivered_at=stamp(row.delivered_at),
        created_at=stamp(row.created_at),
        updated_at=stamp(row.updated_at),
        version=row.version,
    )
    for name in _ADDRESSES:
        if private and name in private:
            getattr(message, name).CopyFrom(pb.OrderAddress(**private[name]))
    for i, number in enumerate((private or {}).get("tracking", ())):
        message.deliveries[i].tracking_number = number
    return message


def _item_message(item: Mapping[str, Any], money: Any) -> pb.OrderItem:
    return pb.OrderItem(
        sku=item.get("sku", ""),
        name=item.get("name", ""),
        category=item.get("category", ""),
        brand=item.get("brand", ""),
        quantity=item["quantity"],
        unit_price=money(item["unit_price_minor"]),
        discount=money(item["discount_minor"]),
        amount=money(item["amount_minor"]),
    )


def _stamp(values: Mapping[str, Any], name: str) -> Any:
    return stamp(datetime.fromisoformat(values[name])) if name in values else None


def own(message: pb.Order) -> pb.Order:
    """The order as its customer sees it: without the business's tags."""
    message.ClearField("tags")
    return message


def metrics(customer_id: UUID, business_id: UUID, row: Row[Any] | None, currency: str) -> pb.CustomerMetrics:
    """What is counted of a customer; all zero without a row."""

    def money(name: str) -> Money:
        return Money(amount_minor=getattr(row, name) if row else 0, currency=currency)

    message = pb.CustomerMetrics(
        customer_id=str(customer_id),
        business_id=str(business_id),
        total_spent=money("total_spent_minor"),
        refunded=money("refunded_minor"),
        net=money("net_minor"),
        average_order=money("average_order_minor"),
    )
    if row is None:
        return message
    message.MergeFrom(
        pb.CustomerMetrics(
            orders_recorded=row.orders_recorded,
            orders_completed=row.orders_completed,
            orders_cancelled=row.orders_cancelled,
            orders_refunded=row.orders_refunded,
            first_order_at=stamp(row.first_order_at),
            last_order_at=stamp(row.last_order_at),
            items=row.items,
            visits=row.visits,
            favourite_category=row.favourite_category or "",
            favourite_brand=row.favourite_brand or "",
        )
    )
    return message
