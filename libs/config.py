"""Settings come from the environment once, at start, and every fault in them is named at once."""

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

PREFIX = "REGULARS_"
# The order gives each service its port; a new service goes to the end.
SERVICES = ("customers", "loyalty", "segments", "privacy", "notifications", "gateway")
ROOT = Path(__file__).resolve().parent.parent
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_FALSE, _TRUE = {"0", "false", "no", "off"}, {"1", "true", "yes", "on"}


class ConfigError(ValueError):
    """The environment is wrong; `faults` has one line for each wrong variable, and never a secret."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("The configuration is wrong:\n" + "\n".join(f"  {fault}" for fault in faults))


def secret(default: str = "") -> Any:
    """A text field that may also be given as a file (`…_FILE`) and is shown in no repr."""
    return field(default=default, repr=False, metadata={"secret": True})


def first_port(default: int) -> Any:
    """The port of the first service; the others follow it. 0: each takes any free port."""
    return field(default=default, metadata={"low": 0, "high": 65500, "first_port": True})


def within(low: float, high: float, default: float) -> Any:
    """A number field from `low` to `high`, both included."""
    return field(default=default, metadata={"low": low, "high": high})


def matching(pattern: str, default: str) -> Any:
    """A text field that must match the whole pattern."""
    return field(default=default, metadata={"pattern": pattern})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every service is told; a service with settings of its own subclasses it.

    Field `db_pool` comes from REGULARS_DB_POOL, and for customers alone from REGULARS_CUSTOMERS_DB_POOL. Of
    GRPC_PORT and METRICS_PORT the plain variable is the first port of all, the service's own is its port.
    """

    service: str | None = field(default=None, metadata={"derived": True})
    home: Path = Path(".regulars")

    # where it listens
    port: int = within(0, 65535, 8080)
    grpc_port: int = first_port(9090)
    metrics_port: int = first_port(-1)  # left out: ten above grpc_port
    bind: str = "127.0.0.1"
    cors_origins: tuple[str, ...] = ()

    # what it needs
    postgres_url: str = secret()
    nats_url: str = secret()
    redis_url: str = secret()
    prefix: str = matching(r"[A-Za-z0-9_-]{0,32}", "")  # of streams, subjects and Redis keys
    database: str = matching(r"[a-z][a-z0-9_]{0,30}", "regulars")
    db_pool: int = within(1, 200, 8)

    # who may call
    oidc_issuer: str = ""  # empty: the development issuer in the home directory
    oidc_jwks: str = ""  # path or http(s) URL
    oidc_audience: str = "regulars"
    roles_file: Path = ROOT / "services" / "roles.toml"
    internal_keys: Path = field(default=Path(), metadata={"under_home": "internal"})

    # personal data
    master_key: str = secret()
    keystore: Path = field(default=Path(), metadata={"under_home": "keystore"})
    spool: Path = field(default=Path(), metadata={"under_home": "spool"})
    objects: str = matching(r"((file|s3|gs|az)://.+)?", "")  # empty: a directory in the home directory
    # A key that nothing needs any more is kept this long, for calls that still have it in hand: longer than any takes.
    key_grace_seconds: float = within(0, 86_400, 60)

    # limits
    rpc_limit: int = within(1, 100_000, 4096)  # calls at once in one service; more are refused
    deadline_seconds: float = within(0.2, 300, 10)  # for calls that bring none
    drain_seconds: float = within(0, 300, 10)  # for running calls at a stop
    rate_limit_tenant: int = within(0, 10_000_000, 60_000)  # requests a minute; 0: no limit
    rate_limit_client: int = within(0, 10_000_000, 6_000)  # requests a minute; 0: no limit

    # what it tells
    otlp_endpoint: str = ""
    log_level: str = "INFO"
    clock: datetime | None = None

    addresses: Mapping[str, str] = field(default_factory=dict, metadata={"derived": True})
    grpc_ports: Mapping[str, int] = field(default_factory=dict, metadata={"derived": True})
    metrics_ports: Mapping[str, int] = field(default_factory=dict, metadata={"derived": True})

    def __post_init__(self) -> None:
        # What follows from other settings; a frozen dataclass has no other way.
        if self.metrics_port < 0:
            object.__setattr__(self, "metrics_port", self.grpc_port + 10 if self.grpc_port else 0)
        for item in fields(self):
            name = item.metadata.get("under_home")
            if name and getattr(self, item.name) == Path():
                object.__setattr__(self, item.name, self.home / name)

    def grpc_port_of(self, service: str) -> int:
        """The gRPC port of a service on this machine."""
        return _port(self.grpc_ports, self.grpc_port, service)

    def metrics_port_of(self, service: str) -> int:
        """The port of a service's /metrics, /healthz and /readyz."""
        return _port(self.metrics_ports, self.metrics_port, service)

    def objects_url(self) -> str:
        """Where sealed files are stored: file:///path, or a cloud's bucket and path."""
        return self.objects or (self.home / "objects").absolute().as_uri()

    def address_of(self, service: str) -> str:
        """`host:port` where a service answers gRPC."""
        return self.addresses.get(service) or f"127.0.0.1:{self.grpc_port_of(service)}"


S = TypeVar("S", bound=Settings)


def process_environment() -> dict[str, str]:
    """A copy of this process's environment, to start children with."""
    return dict(os.environ)


def _port(own: Mapping[str, int], first: int, service: str) -> int:
    if service in own:
        return own[service]
    return first + SERVICES.index(service) if first else 0


def load(cls: type[S], service: str | None, env: Mapping[str, str] | None = None) -> S:
    """The settings of `service` (None: of a command) from `env`, by default the process's.

    Variables that name another service are left to that service to judge. Raises ConfigError.
    """
    env = os.environ if env is None else env
    given = {name: value for name, value in env.items() if name.startswith(PREFIX)}
    faults: list[str] = []
    used: set[str] = set()
    hints = get_type_hints(cls)
    values: dict[str, Any] = {"service": service}
    for item in fields(cls):
        if item.metadata.get("derived"):
            continue
        names = _names(item, service)
        used.update(names, (f"{name}_FILE" for name in names if item.metadata.get("secret")))
        for variable in names:
            found = _text(item, variable, given, faults)
            if found is None:
                continue
            try:
                values[item.name] = _parse(item, hints[item.name], found)
            except ValueError as error:
                shown = "" if item.metadata.get("secret") else f" (given: {found!r})"
                faults.append(f"{variable}: {error}{shown}")
            break
        else:
            if item.default is MISSING and item.default_factory is MISSING:
                faults.append(f"{_names(item, None)[0]}: is missing")
    values |= _per_service(given, used, faults)
    others = tuple(PREFIX + name.upper() + "_" for name in SERVICES if name != service)
    unknown = (name for name in sorted(set(given) - used) if not name.startswith(others))
    faults.extend(f"{name}: no such setting" for name in unknown)
    if faults:
        raise ConfigError(faults)
    return cls(**values)


def _names(item: Field[Any], service: str | None) -> list[str]:
    plain = PREFIX + item.name.upper()
    if service is None or item.metadata.get("first_port"):
        return [plain]
    return [f"{PREFIX}{service.upper()}_{item.name.upper()}", plain]


def _text(item: Field[Any], variable: str, given: Mapping[str, str], faults: list[str]) -> str | None:
    text = given.get(variable)
    if not item.metadata.get("secret"):
        return text
    file = given.get(variable + "_FILE")
    if file is None:
        return text
    if text is not None:
        faults.append(f"{variable}: given twice, also as {variable}_FILE")
        return None
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError):
        faults.append(f"{variable}_FILE: cannot be read (given: {file!r})")
        return None


def _per_service(given: Mapping[str, str], used: set[str], faults: list[str]) -> dict[str, Any]:
    """Addresses and ports that are given for single services, of all services: callers need them."""
    addresses: dict[str, str] = {}
    ports: dict[str, dict[str, int]] = {"GRPC_PORT": {}, "METRICS_PORT": {}}
    for service in SERVICES:
        variable = f"{PREFIX}{service.upper()}_ADDRESS"
        used.add(variable)
        address = given.get(variable)
        if address is not None:
            if re.fullmatch(r"\S+:\d{1,5}", address) is None:
                faults.append(f"{variable}: must be host:port (given: {address!r})")
            addresses[service] = address
        for thing, own in ports.items():
            variable = f"{PREFIX}{service.upper()}_{thing}"
            text = given.get(variable)
            if text is None:
                continue
            used.add(variable)
            if text.isdigit() and int(text) <= 65535:
                own[service] = int(text)
            else:
                faults.append(f"{variable}: must be a port (given: {text!r})")
    return {"addresses": addresses, "grpc_ports": ports["GRPC_PORT"], "metrics_ports": ports["METRICS_PORT"]}


def _parse(item: Field[Any], hint: Any, text: str) -> Any:
    """The value of one field. Raises ValueError that says what is expected."""
    kind = hint
    if get_origin(hint) is UnionType:
        kind = next(option for option in get_args(hint) if option is not NoneType)
        if not text:
            return None
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError("must be true or false")
        return text.lower() in _TRUE
    if kind in (int, float):
        return _number(item, kind, text)
    if kind is Path:
        if not text:
            raise ValueError("must be a path")
        return Path(text)
    if kind is datetime:
        return _instant(text)
    pattern = item.metadata.get("pattern")
    if pattern and re.fullmatch(pattern, text) is None:
        raise ValueError(f"must match {pattern}")
    if item.name == "log_level":
        if text.upper() not in LOG_LEVELS:
            raise ValueError("must be one of " + ", ".join(LOG_LEVELS))
        return text.upper()
    return text


def _number(item: Field[Any], kind: type[int] | type[float], text: str) -> float:
    low, high = item.metadata.get("low", float("-inf")), item.metadata.get("high", float("inf"))
    try:
        number = kind(text)
    except ValueError:
        raise ValueError("must be a whole number" if kind is int else "must be a number") from None
    if not low <= number <= high:
        raise ValueError(f"must be from {low:g} to {high:g}")
    return number


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be an instant like 2026-01-31T12:00:00Z") from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
