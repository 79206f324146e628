"""Writes docs/permissions.md: who may call what. `python -m protos.permissions`."""

from collections.abc import Iterator

from google.api.http_pb2 import HttpRule

from libs import contracts
from libs.contracts import Method
from libs.roles import Roles
from protos.build import ROOT

PAGE = ROOT / "docs" / "permissions.md"
_HEAD = """# Who may call what

Made from the contracts and services/roles.toml by `python -m protos.permissions`; `make check` says when it is stale.

A token names roles; roles hold permissions; each RPC asks for one, before it reads the request (AIP-211). A customer's
own token holds none, whatever roles it names: it reaches the RPCs marked "the customer". Services call each other with
tokens of their own, and only where they are listed. What a role does not see of an answer stands in
services/roles.toml.
"""


def page() -> str:
    """The whole page."""
    roles = Roles.load(ROOT / "services" / "roles.toml")
    return "\n".join([_HEAD, *_by_role(roles), *_by_rpc(roles)])


def stale() -> list[str]:
    """Says so if the page is not of these contracts and roles."""
    known = PAGE.read_text() if PAGE.exists() else ""
    return [] if known == page() else [f"{PAGE.relative_to(ROOT)} is stale: → python -m protos.permissions"]


def _by_role(roles: Roles) -> Iterator[str]:
    yield "## By role\n\n| role | permissions |\n| --- | --- |"
    for name in roles.names():
        held = sorted(roles.permissions_of(name))
        yield f"| {name} | {', '.join(held) or 'none'} |"


def _by_rpc(roles: Roles) -> Iterator[str]:
    service = ""
    for path, method in sorted(contracts.methods().items()):
        owner = path[1:].partition("/")[0]
        if owner != service:
            service = owner
            yield f"\n## {service}\n\n| RPC | REST | permission | roles | services |\n| --- | --- | --- | --- | --- |"
        routes = "<br>".join(f"`{_route(rule)}`" for rule in method.http) or "–"
        peers = ", ".join(sorted(method.access.peers)) or "–"
        yield f"| {method.name} | {routes} | {_permission(method)} | {_roles(method, roles)} | {peers} |"
    yield ""


def _permission(method: Method) -> str:
    return f"`{method.access.permission}`" if method.access.permission else "–"


def _roles(method: Method, roles: Roles) -> str:
    if method.access.self_service:
        return "the customer"
    if method.access.link:
        return "whoever has the link"
    return ", ".join(name for name in roles.names() if method.access.permission in roles.permissions_of(name))


def _route(rule: HttpRule) -> str:
    verb = str(rule.WhichOneof("pattern"))
    return f"{verb.upper()} {getattr(rule, verb)}"


if __name__ == "__main__":
    PAGE.write_text(page())
