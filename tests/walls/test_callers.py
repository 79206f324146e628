"""Who may call: for every RPC that there is."""

import pytest
from google.protobuf.message_factory import GetMessageClass

from libs.boundary import INTERNAL_KEY
from libs.caller import Caller
from libs.contracts import Method
from libs.ids import new_id
from libs.internal_keys import InternalIssuer
from libs.problems import Code
from tests.platform import Stack, TenantOfTest
from tests.walls.calls import FAULTS, METHODS, bearer, call

SERVICES = sorted({method.service_name for method in METHODS.values()})
DAMAGED = b"\xff\xff\xff"  # no message begins like this

# Whoever follows a link brings no token, and one that they bring counts for nothing.
by_link = {path for path, method in METHODS.items() if method.access.link}
every_rpc = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


@every_rpc
async def test_without_a_token_nobody_is_served(stack: Stack, method: Method) -> None:
    refusals = (
        {Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT} if method.path in by_link else {Code.UNAUTHENTICATED}
    )
    nobody = await call(stack, method, GetMessageClass(method.input)())
    assert nobody.code in refusals
    forged = await call(stack, method, GetMessageClass(method.input)(), bearer("e30.e30.c2ln"))
    assert forged.code in refusals


@every_rpc
async def test_without_the_permission_nothing_is_even_read(
    stack: Stack, tenant: TenantOfTest, method: Method
) -> None:
    """AIP-211: whoever may not call learns nothing from what they sent."""
    refused = await call(stack, method, DAMAGED, bearer(tenant.token("nobody")))
    assert refused.code is (Code.INVALID_ARGUMENT if method.path in by_link else Code.PERMISSION_DENIED)


@every_rpc
async def test_a_customer_calls_what_is_for_customers(
    stack: Stack, tenant: TenantOfTest, method: Method
) -> None:
    """Whatever roles the token of a customer claims."""
    token = tenant.token("owner", "platform", customer=new_id())
    outcome = await call(stack, method, DAMAGED, bearer(token))
    reads = method.access.self_service or method.access.link
    expected = Code.INVALID_ARGUMENT if reads else Code.PERMISSION_DENIED
    assert outcome.code is expected


@every_rpc
async def test_a_tenant_that_nobody_made_is_nobody(stack: Stack, method: Method) -> None:
    customer = new_id() if method.access.self_service else None
    token = stack.token(new_id(), "admin", "platform", customer=customer)
    outcome = await call(stack, method, GetMessageClass(method.input)(), bearer(token))
    if method.access.platform or method.access.link:
        assert outcome.code not in FAULTS
        assert outcome.code or not method.access.link
    else:
        assert outcome.code is Code.UNAUTHENTICATED


@every_rpc
async def test_peers_call_what_lists_them(stack: Stack, tenant: TenantOfTest, method: Method) -> None:
    caller = Caller(tenant_id=tenant.id, subject="walls")
    allowed = set()
    for peer in SERVICES:
        token = InternalIssuer(peer, stack.settings.internal_keys).token(method.service_name, caller)
        outcome = await call(stack, method, DAMAGED, (INTERNAL_KEY, token))
        assert outcome.code in {Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT}
        if outcome.code is Code.INVALID_ARGUMENT:
            allowed.add(peer)
    assert allowed == (set(SERVICES) if method.access.link else set(method.access.peers))
