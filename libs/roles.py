"""Roles: what a token's roles allow, and which data they may not see."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from libs import contracts
from libs.masking import covers

PLATFORM = "platform."


class RolesError(ValueError):
    """The file of roles is wrong; the message has one line for each fault."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do, and the data categories that it may not see."""

    permissions: frozenset[str]
    masks: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Role:
    permissions: tuple[str, ...]
    without: tuple[str, ...]
    masks: frozenset[str]

    def holds(self, permission: str) -> bool:
        named = any(_matches(pattern, permission) for pattern in self.permissions)
        return named and not any(_matches(pattern, permission) for pattern in self.without)


def _matches(pattern: str, permission: str) -> bool:
    """`customers.*` matches the noun; patterns that do not name the platform never reach its permissions."""
    if permission.startswith(PLATFORM) and not pattern.startswith(PLATFORM):
        return False
    return fnmatchcase(permission, pattern)


class Roles:
    """The roles of an installation, from its file."""

    def __init__(self, roles: Mapping[str, _Role], permissions: frozenset[str]) -> None:
        self._roles = roles
        self._known = permissions
        self._grants: dict[frozenset[str], Grant] = {}

    @classmethod
    def load(cls, path: Path, permissions: Iterable[str] | None = None) -> "Roles":
        """Reads and checks the file against the permissions that there are (default: those of the protos).

        Raises RolesError.
        """
        try:
            content = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RolesError(f"{path} cannot be read: {error}") from error
        known = frozenset(declared() if permissions is None else permissions) | set(content.get("extra", []))
        roles = {
            name: _Role(
                tuple(role.get("permissions", ())),
                tuple(role.get("without", ())),
                frozenset(role.get("masks", ())),
            )
            for name, role in content.get("roles", {}).items()
        }
        found = faults(roles, known)
        if found:
            raise RolesError(f"{path} is wrong:\n" + "\n".join(f"  {fault}" for fault in found))
        return cls(roles, known)

    def grant(self, names: frozenset[str]) -> Grant:
        """What these roles allow together. Unknown names give nothing.

        A category stays masked only if every one of the roles masks it.
        """
        kept = self._grants.get(names)
        if kept is None:
            kept = self._combined([self._roles[name] for name in names if name in self._roles])
            if len(self._grants) < 1000:  # names come from tokens
                self._grants[names] = kept
        return kept

    def permissions_of(self, name: str) -> frozenset[str]:
        """The permissions of one role."""
        return self.grant(frozenset({name})).permissions

    def names(self) -> tuple[str, ...]:
        """The roles that there are."""
        return tuple(self._roles)

    def _combined(self, roles: list[_Role]) -> Grant:
        permissions = frozenset(p for p in self._known if any(role.holds(p) for role in roles))
        masks = {m for role in roles for m in role.masks if all(covers(other.masks, m) for other in roles)}
        return Grant(permissions, frozenset(masks))


def declared() -> frozenset[str]:
    """Every permission that an RPC asks for."""
    return frozenset(m.access.permission for m in contracts.methods().values() if m.access.permission)


def faults(roles: Mapping[str, _Role], known: frozenset[str]) -> list[str]:
    """Permissions that no role holds, and names in roles that lead to none."""
    found = [
        f"permission {permission} is held by no role"
        for permission in sorted(known)
        if not any(role.holds(permission) for role in roles.values())
    ]
    for name, role in roles.items():
        named = {*role.permissions, *role.without} - {"*"}
        dead = (pattern for pattern in sorted(named) if not any(_matches(pattern, p) for p in known))
        found.extend(f"role {name} names {pattern}, which no RPC asks for" for pattern in dead)
        blind = sorted(role.masks - _categories())
        found.extend(f"role {name} masks {masked}, which no field bears" for masked in blind)
    return found


@cache
def _categories() -> frozenset[str]:
    """Every data category that a field bears, and those above it."""
    found: set[str] = set()
    messages = (message for file in contracts.files() for message in contracts.messages(file))
    for field in (field for message in messages for field in message.fields):
        parts = contracts.category(field).split(".")
        found.update(".".join(parts[: i + 1]) for i in range(len(parts)))
    return frozenset(found)
