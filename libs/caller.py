"""Who is calling: set once by Boundary (or from an event's envelope), read everywhere below it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from libs.problems import PermissionDenied, Unauthenticated


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One caller of one call.

    `businesses` is None for all businesses of the tenant. `masks` are the data categories ("user.contact")
    whose fields this caller may neither read nor write. `subject` is the principal within the token's issuer.
    """

    tenant_id: UUID | None
    businesses: frozenset[UUID] | None = None
    subject: str
    kind: Literal["user", "customer", "service"] = "user"
    roles: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()
    customer_id: UUID | None = None
    service: str | None = None
    on_behalf_of: str | None = None
    display_name: str | None = None
    purpose: str | None = None
    request_id: str = ""
    method: str = ""

    def sees(self, business_id: UUID) -> bool:
        """True if the business is one of the caller's."""
        return self.businesses is None or business_id in self.businesses

    def may(self, permission: str) -> bool:
        """True if the caller's roles give the permission."""
        return permission in self.permissions

    def tenant(self) -> UUID:
        """The caller's tenant. Raises Unauthenticated where there is none."""
        if self.tenant_id is None:
            raise Unauthenticated("The token names no tenant.")
        return self.tenant_id

    def require(self, permission: str) -> None:
        """Raises PermissionDenied unless the caller's roles give the permission."""
        if not self.may(permission):
            raise PermissionDenied(f"Permission {permission} is missing.", permission=permission)


_current: ContextVar[Caller] = ContextVar("caller")


def current() -> Caller:
    """The caller of the running call. Raises Unauthenticated outside of any."""
    caller = _current.get(None)
    if caller is None:
        raise Unauthenticated
    return caller


@contextmanager
def acting_as(caller: Caller) -> Iterator[Caller]:
    """Runs the block as `caller`."""
    token = _current.set(caller)
    try:
        yield caller
    finally:
        _current.reset(token)
