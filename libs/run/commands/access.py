"""`regulars tenant` and `regulars token`: what one needs first on a new stack."""

import tomllib
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from libs import config, issuer
from libs.ids import parse_id
from libs.run import terminal
from libs.run.commands.calls import PLATFORM_ROLE, ask, operator_token
from libs.run.stack.faults import BadConfiguration
from libs.run.terminal import Json, faults_told, out, print_json, say

tenants = typer.Typer(no_args_is_help=True, help="Make and find tenants.")
TENANTS = "/regulars.customers.v1.TenantsService"
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
        _show(terminal.run(_create(terminal.settings(), fields, token)), as_json)


@tenants.command()
def get(
    tenant: Annotated[str, typer.Argument(help="Id or slug.")], token: Token = "", as_json: Json = False
) -> None:
    """Find a tenant by id or slug. Prints its id."""
    with faults_told():
        _show(terminal.run(_find(terminal.settings(), tenant, token)), as_json)


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
            tenant=terminal.run(tenant_id(found, tenant)) if tenant else None,
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


async def tenant_id(found: config.Settings, tenant: str) -> UUID:
    """The id that `tenant` names; a slug is looked up at the customers service."""
    known = parse_id(tenant)
    return known or UUID((await _find(found, tenant, "")).id)


async def _find(found: config.Settings, tenant: str, token: str) -> Any:
    fields = {"id": tenant} if parse_id(tenant) else {"slug": tenant}
    return await ask(found, f"{TENANTS}/GetTenant", fields, token or operator_token(found))


async def _create(found: config.Settings, fields: dict[str, str], token: str) -> Any:
    return await ask(found, f"{TENANTS}/CreateTenant", fields, token or operator_token(found))


def _show(tenant: Any, as_json: bool) -> None:
    if as_json:
        created_at = tenant.created_at.ToJsonString()
        fields = {"id": tenant.id, "slug": tenant.slug, "displayName": tenant.display_name}
        print_json({**fields, "createdAt": created_at})
        return
    say(f"Tenant {tenant.slug} ({tenant.display_name}):")
    out.print(tenant.id, markup=False)
