"""One RPC for a command: by its path, with a token, its refusal told to a person."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from libs import config, issuer
from libs.ids import new_id
from libs.run.stack.faults import BadConfiguration, NotHealthy, NotRunning

PLATFORM_ROLE = "platform"
SECONDS = 10


def operator_token(found: config.Settings, tenant: UUID | None = None, *roles: str) -> str:
    """A token for the one who runs the platform, good for a minute. Raises BadConfiguration."""
    if found.oidc_issuer:
        message = "REGULARS_OIDC_ISSUER is set: give a token with role platform by --token."
        raise BadConfiguration(message)
    return issuer.mint(
        found.home.resolve(),
        tenant=tenant,
        roles=[PLATFORM_ROLE, *roles],
        subject="command-line",
        ttl_seconds=60,
        audience=found.oidc_audience,
    )


async def ask(found: config.Settings, path: str, fields: Mapping[str, Any], token: str) -> Any:
    """The answer of the RPC at `path` ("/regulars.customers.v1.TenantsService/GetTenant").

    `fields` are those of its request. Raises NotRunning, and NotHealthy with the service's refusal.
    """
    # Imported here: commands that call nobody should not wait for them.
    import grpc
    from google.protobuf.message_factory import GetMessageClass

    from libs import contracts, status

    method = contracts.methods()[path]
    address = found.address_of(method.service_name)
    metadata = (("authorization", f"Bearer {token}"), ("x-request-id", str(new_id())))
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(
            path,
            request_serializer=GetMessageClass(method.input).SerializeToString,
            response_deserializer=GetMessageClass(method.output).FromString,
        )
        try:
            return await call(GetMessageClass(method.input)(**fields), timeout=SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                message = f"{method.service_name} does not answer at {address}: `regulars up`."
                raise NotRunning(message) from None
            problem = status.from_rpc_error(error)
            lines = [f"  {violation.field}: {violation.description}" for violation in problem.violations]
            raise NotHealthy("\n".join([f"{problem.reason}: {problem.message}", *lines])) from None
