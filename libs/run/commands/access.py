"""`regulars tenant` and `regulars token`: what one needs first on a new stack."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from libs import config, issuer
from libs.ids import new_id, parse_id
from libs.run import terminal
from libs.run.stack.faults import BadConfiguration, NotHealthy, NotRunning
from libs.run.terminal import Json, faults_told, out, print_json, say

if TYPE_CHECKING:
    from regulars.customers.v1.tenants_pb2 import Tenant

tenants = typer.Typer(no_args_is_help=True, help="Make and find tenants.")
PLATFORM_ROLE = "platform"
SECONDS = 10
Token = Annotated[
    str, typer.Option("--token", help="A platform token, if tokens come from an issuer of your own.")
]


@tenants.command()
def create(
    slug: Annotated[str, typer.Argument(help="Short name: 3 to 40 of a-z, 0-9 and hyphen.")],
    name: Annotated[str, typer.Option(help="Name to show (default: the slug).")] = "",
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Make a tenant; again with the same slug gives the same tenant. Prints its id."""
    with faults_told():
        fields = {"slug": slug, "display_name": name}
        _show(terminal.run(_call(terminal.settings(), token, "CreateTenant", fields)), as_json)


@tenants.command()
def get(
    tenant: Annotated[str, typer.Argument(help="Id or slug.")], token: Token = "", as_json: Json = False
) -> None:
    """Find a tenant by id or slug. Prints its id."""
    with faults_told():
        _show(terminal.run(_call(terminal.settings(), token, "GetTenant", _named(tenant))), as_json)


def mint(
    tenant: Annotated[str, typer.Option(help="Id or slug; may be left out for role platform only.")] = "",
    role: Annotated[list[str], typer.Option(help="May be given several times.")] = [],  # noqa: B006
    business: Annotated[list[UUID], typer.Option(help="Several times for several; default: all.")] = [],  # noqa: B006
    customer: Annotated[UUID | None, typer.Option(help="For self-service: whose token it is.")] = None,
    subject: Annotated[str, typer.Option(help="Who it is, as the issuer knows them.")] = "developer",
    name: Annotated[str | None, typer.Option(help="Name to show.")] = None,
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.", min=1)] = 3600,
) -> None:
    """Mint a token by the development issuer. The last line is the token alone."""
    with faults_told():
        found = terminal.settings()
        if found.oidc_issuer:
            raise BadConfiguration("REGULARS_OIDC_ISSUER is set: tokens come from there, not from here.")
        roles = [*role, *(["customer"] if customer else [])]
        _check_roles(found.roles_file, roles)
        if not tenant and roles != [PLATFORM_ROLE]:
            raise typer.BadParameter("is needed for all roles but platform", param_hint="--tenant")
        text = issuer.mint(
            found.home.resolve(),
            tenant=_tenant_id(found, tenant),
            roles=roles,
            businesses=business or None,
            customer=customer,
            subject=subject,
            name=name,
            ttl_seconds=ttl,
            audience=found.oidc_audience,
        )
    say(f"Valid for {ttl} s.")
    out.print(text, markup=False)


def _check_roles(file: Path, roles: list[str]) -> None:
    known = sorted(tomllib.loads(file.read_text())["roles"])
    wrong = sorted(set(roles) - set(known))
    if wrong or not roles:
        problem = f"no such role: {', '.join(wrong)}" if wrong else "at least one is needed"
        raise typer.BadParameter(f"{problem} (there are: {', '.join(known)})", param_hint="--role")


def _tenant_id(found: config.Settings, tenant: str) -> UUID | None:
    """The id that `tenant` names; a slug is looked up at the customers service."""
    if not tenant:
        return None
    known = parse_id(tenant)
    return known or UUID(terminal.run(_call(found, "", "GetTenant", _named(tenant))).id)


def _named(tenant: str) -> dict[str, str]:
    return {"id": tenant} if parse_id(tenant) else {"slug": tenant}


async def _call(found: config.Settings, token: str, method: str, fields: dict[str, str]) -> "Tenant":
    """Asks TenantsService. Raises NotRunning, NotHealthy with the service's refusal, BadConfiguration."""
    # Imported here: the other commands should not wait for them.
    import grpc

    from libs import status
    from regulars.customers.v1 import tenants_pb2, tenants_pb2_grpc

    if not token and found.oidc_issuer:
        raise BadConfiguration("REGULARS_OIDC_ISSUER is set: give a token with role platform by --token.")
    token = token or issuer.mint(
        found.home.resolve(),
        tenant=None,
        roles=[PLATFORM_ROLE],
        subject="command-line",
        ttl_seconds=60,
        audience=found.oidc_audience,
    )
    address = found.address_of("customers")
    metadata = (("authorization", f"Bearer {token}"), ("x-request-id", str(new_id())))
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = getattr(tenants_pb2_grpc.TenantsServiceStub(channel), method)
        request = getattr(tenants_pb2, f"{method}Request")(**fields)
        try:
            answer: Tenant = await call(request, timeout=SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                message = f"The customers service does not answer at {address}: `regulars up`."
                raise NotRunning(message) from None
            problem = status.from_rpc_error(error)
            lines = [f"  {violation.field}: {violation.description}" for violation in problem.violations]
            raise NotHealthy("\n".join([f"{problem.reason}: {problem.message}", *lines])) from None
    return answer


def _show(tenant: "Tenant", as_json: bool) -> None:
    if as_json:
        created_at = tenant.created_at.ToJsonString()
        fields = {"id": tenant.id, "slug": tenant.slug, "displayName": tenant.display_name}
        print_json({**fields, "createdAt": created_at})
        return
    say(f"Tenant {tenant.slug} ({tenant.display_name}):")
    out.print(tenant.id, markup=False)
