"""Names, passwords and addresses of the database roles of each service."""

import json
import secrets
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from libs.files import replace

Role = Literal["owner", "app", "worker"]
ROLES: tuple[Role, ...] = ("owner", "app", "worker")


def role_name(database: str, service: str, role: Role) -> str:
    """The role of `service` in `database`, whose name is in it since roles belong to the whole server."""
    return f"regulars_{database}_{service}_{role}"


def passwords_file(home: Path) -> Path:
    """The file (0600) with the passwords of every database role: {database: {service: {role: password}}}."""
    return home / "secrets" / "db.json"


def passwords(home: Path, database: str, service: str) -> dict[Role, str]:
    """The passwords of the three roles of `service`.

    Raises LookupError if the bootstrap (`regulars migrate`) has not made them yet.
    """
    try:
        known = json.loads(passwords_file(home).read_text())
        return {role: known[database][service][role] for role in ROLES}
    except (FileNotFoundError, KeyError) as missing:
        message = (
            f"{passwords_file(home)} has no passwords for {service} in {database}: run `regulars migrate`."
        )
        raise LookupError(message) from missing


def ensure_passwords(home: Path, database: str, service: str) -> dict[Role, str]:
    """As `passwords`, making those that are missing. The caller holds the bootstrap's lock."""
    path = passwords_file(home)
    known = json.loads(path.read_text()) if path.exists() else {}
    mine = known.setdefault(database, {}).setdefault(service, {})
    if not all(role in mine for role in ROLES):
        for role in ROLES:
            mine.setdefault(role, secrets.token_urlsafe(24))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(path, json.dumps(known, indent=1).encode())
    return {role: mine[role] for role in ROLES}


def with_user(url: str, database: str, user: str, password: str) -> str:
    """`url` (postgresql://…) with another database and user; host, port and query stay."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{userinfo}@{place}", path=f"/{quote(database, safe='')}"))


def role_url(url: str, home: Path, database: str, service: str, role: Role) -> str:
    """The address for one role of `service`, on the server of the admin address `url`.

    Raises LookupError before the bootstrap.
    """
    password = passwords(home, database, service)[role]
    return with_user(url, database, role_name(database, service, role), password)
