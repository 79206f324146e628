"""Roles: patterns, what several of them give together, and that the shipped file fits the protos."""

from pathlib import Path

import pytest

from libs.config import ROOT
from libs.roles import Roles, RolesError

KNOWN = ["customers.read", "customers.write", "notes.read", "platform.tenants"]


def roles(tmp_path: Path, content: str) -> Roles:
    path = tmp_path / "roles.toml"
    path.write_text(content)
    return Roles.load(path, KNOWN)


ALL = '[roles.all]\npermissions = ["*"]\n[roles.platform]\npermissions = ["platform.*"]\n'


def test_patterns_and_what_is_taken_away(tmp_path: Path) -> None:
    found = roles(
        tmp_path, ALL + '[roles.some]\npermissions = ["*"]\nwithout = ["notes.*", "customers.write"]'
    )
    assert found.permissions_of("all") == {"customers.read", "customers.write", "notes.read"}
    assert found.permissions_of("some") == {"customers.read"}
    assert found.permissions_of("platform") == {"platform.tenants"}
    assert found.permissions_of("nobody") == frozenset()


def test_a_category_is_masked_only_if_every_role_masks_it(tmp_path: Path) -> None:
    found = roles(
        tmp_path,
        ALL
        + '[roles.a]\npermissions = ["customers.read"]\nmasks = ["user.contact", "user.name"]\n'
        + '[roles.b]\npermissions = ["notes.read"]\nmasks = ["user.contact.email"]\n',
    )
    assert found.grant(frozenset({"a"})).masks == {"user.contact", "user.name"}
    assert found.grant(frozenset({"a", "b"})).masks == {"user.contact.email"}
    assert found.grant(frozenset({"a", "b"})).permissions == {"customers.read", "notes.read"}
    assert found.grant(frozenset({"a", "all"})).masks == frozenset()
    assert found.grant(frozenset({"a", "unknown"})).masks == {"user.contact", "user.name"}


def test_every_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(RolesError) as refused:
        roles(tmp_path, '[roles.a]\npermissions = ["customers.*", "custmers.read"]\nmasks = ["user.contct"]')
    told = str(refused.value)
    for part in ("notes.read is held by no role", "platform.tenants", "custmers.read", "user.contct"):
        assert part in told
    with pytest.raises(RolesError):
        roles(tmp_path, "[roles")
    with pytest.raises(RolesError):
        Roles.load(tmp_path / "none.toml", KNOWN)


def test_the_shipped_roles_fit_the_protos() -> None:
    found = Roles.load(ROOT / "services" / "roles.toml")
    assert {
        "owner",
        "admin",
        "manager",
        "marketer",
        "support",
        "compliance",
        "analyst",
        "customer",
        "service",
    } <= set(found.names())
    assert not any(p.startswith("platform.") for p in found.permissions_of("owner"))
    assert "customers.delete" not in found.permissions_of("support")
