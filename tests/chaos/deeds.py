"""What clients ask for once: with a request id, told again through whichever door until answered, or never."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from google.api.annotations_pb2 import http
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from libs.ids import new_id
from regulars.loyalty.v1 import households_pb2 as households
from regulars.loyalty.v1 import ledger_pb2 as ledger
from regulars.loyalty.v1 import rewards_pb2 as rewards
from regulars.loyalty.v1.households_pb2_grpc import HouseholdsServiceStub, MyHouseholdServiceStub
from regulars.loyalty.v1.ledger_pb2_grpc import LedgerServiceStub
from regulars.loyalty.v1.rewards_pb2_grpc import RedemptionsServiceStub
from tests.chaos.work import CALL_SECONDS, Again, Refused, Work, called, posted
from tests.customers.shop import Shop

_STUBS = {
    "LedgerService": (ledger, LedgerServiceStub),
    "RedemptionsService": (rewards, RedemptionsServiceStub),
    "HouseholdsService": (households, HouseholdsServiceStub),
    "MyHouseholdService": (households, MyHouseholdServiceStub),
}
_SERVICES = {
    rpc.name: service
    for service, (module, _) in _STUBS.items()
    for rpc in module.DESCRIPTOR.services_by_name[service].methods
}
_SPENT_BY_USE = "CreateHouseholdInvitation"  # told again once it was used, it says that it is gone


@dataclass(slots=True, eq=False)
class Deed:
    """Something that was asked for. `id` is what came of it, `refused` why nothing did; neither: nobody knows.

    `about` is the deed that it goes on with, as the hold that is captured; `who` the member who asks, the till if
    empty. `answered` is in epoch seconds.
    """

    rpc: str
    request: Any
    about: "Deed | None" = None
    who: str = ""
    id: str = ""
    refused: str = ""
    answered: float = 0
    code: str = ""

    @property
    def request_id(self) -> str:
        """What makes it happen once. Empty for what may happen again."""
        return str(getattr(self.request, "request_id", ""))


class Door:
    """How somebody asks: the till, or a member with a token of their own."""

    def __init__(self, shop: Shop, **claims: Any) -> None:
        mine: dict[str, Any] = {"businesses": [shop.id], "ttl_seconds": 86_400} | claims
        self.rest = shop.tenant.rest(**mine)
        self.rest.timeout = httpx.Timeout(CALL_SECONDS)
        self.stubs: dict[str, Any] = {
            name: shop.tenant.calls(stub, **mine) for name, (_, stub) in _STUBS.items()
        }


@dataclass(kw_only=True)
class Doing(Work):
    """What was asked for so far, in the order of asking. `given_up` is how many were not told again."""

    shop: Shop
    deeds: list[Deed] = field(default_factory=list)
    given_up: int = 0
    told_twice: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(11))
    doors: dict[str, Door] = field(default_factory=dict)

    async def close(self) -> None:
        """Closes all connections."""
        for each in self.doors.values():
            await each.rest.aclose()

    async def do(
        self, rpc: str, request: Any, about: Deed | None = None, *, who: str = "", certain: bool = False
    ) -> Deed:
        """A deed after it was asked for, in the end: some of those without an answer are not told again."""
        if "request_id" in type(request).DESCRIPTOR.fields_by_name:
            request.request_id = new_id().hex
        deed = Deed(rpc, request, about, who)
        self.deeds.append(deed)
        patient = certain or self.dice.random() < 0.7
        try:
            if patient:
                deed.id, deed.code = await self.until_answered(lambda: self._ask(deed))
            else:
                deed.id, deed.code = await self._ask(deed)
        except Again:
            self.given_up += 1
            return deed
        except Refused as refused:
            deed.refused = refused.reason
        deed.answered = time.time()
        self.acknowledged += 1
        return deed

    async def tell_twice(self, dice: random.Random) -> None:
        """What was done, told again, does nothing and gives the same answer."""
        deed = _any(dice, (each for each in self.deeds[-500:] if each.id and _bears_repeating(each)))
        if deed is not None:
            again, _ = await self.until_answered(lambda: self._ask(deed))
            assert again == deed.id, f"{deed.rpc} {deed.id} was told again and became {again}"
            self.told_twice += 1

    def door(self, who: str = "") -> Door:
        """How a member asks, or the till: it may tell again what it told through another door."""
        if who not in self.doors:
            self.doors[who] = Door(self.shop, **({"customer": who} if who else {"subject": "till"}))
        return self.doors[who]

    async def _ask(self, deed: Deed) -> tuple[str, str]:
        """The id of what came of it, and the code that it bears."""
        self.under_way += 1
        try:
            if self.dice.random() < 0.5:
                return await self._over_rest(deed)
            rpc = getattr(self.door(deed.who).stubs[_SERVICES[deed.rpc]], deed.rpc)
            answer = await called(rpc(deed.request, timeout=CALL_SECONDS))
        finally:
            self.under_way -= 1
        found = answer.given if deed.rpc == "TransferPoints" else answer
        return getattr(found, "id", ""), getattr(found, "code", "")

    async def _over_rest(self, deed: Deed) -> tuple[str, str]:
        service = _SERVICES[deed.rpc]
        body = MessageToDict(deed.request)
        request_id = body.pop("requestId", "")
        headers = {"idempotency-key": request_id} if request_id else {}
        methods = _STUBS[service][0].DESCRIPTOR.services_by_name[service].methods_by_name
        rule = methods[deed.rpc].GetOptions().Extensions[http]
        path, rest = _filled(rule.post or rule.delete, deed.request, body), self.door(deed.who).rest
        if rule.delete:
            answer = await posted(rest.delete(path, headers=headers))
        else:
            answer = await posted(rest.post(path, headers=headers, json=body))
        found = answer["given"] if deed.rpc == "TransferPoints" else answer
        return found.get("id", ""), found.get("code", "")


def _any(dice: random.Random, of: Iterable[Deed]) -> Deed | None:
    found = list(of)
    return dice.choice(found) if found else None


def _bears_repeating(deed: Deed) -> bool:
    return bool(deed.request_id) and deed.rpc in _SERVICES and deed.rpc != _SPENT_BY_USE


def _filled(path: str, request: Message, body: dict[str, Any]) -> str:
    """A path with the fields that it names, which leave the body."""
    for each in type(request).DESCRIPTOR.fields:
        if f"{{{each.name}}}" in path:
            path = path.replace(f"{{{each.name}}}", str(body.pop(each.json_name)))
    return path
