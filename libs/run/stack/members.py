"""The services of a stack, each as a program of its own."""

import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from libs import config
from libs.run.stack.faults import PortTaken
from libs.run.stack.home import Home, port_is_free
from libs.run.stack.process import Program

GATEWAY = "gateway"


def present() -> list[str]:
    """The services that exist in this checkout, in the order of their ports; the gateway is last."""
    return [name for name in config.SERVICES if find_spec(f"services.{name}") and _has_main(name)]


def _has_main(name: str) -> bool:
    return find_spec(f"services.{name}.__main__") is not None


def reachable(host: str) -> str:
    """How to reach, from this machine, what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104


def rest_url(settings: config.Settings) -> str:
    """Where the gateway answers."""
    return f"http://{reachable(settings.bind)}:{settings.port}"


def address(settings: config.Settings, name: str) -> str:
    """Where a service of this stack answers: a URL for the gateway, `host:port` for the others."""
    if name == GATEWAY:
        return rest_url(settings)
    return f"{reachable(settings.bind)}:{settings.grpc_port_of(name)}"


async def healthy(settings: config.Settings, name: str) -> bool:
    """Whether a service does its work now."""
    from libs.run.stack.health import grpc_serving, http_ready  # not every command needs gRPC

    if name == GATEWAY:
        return await http_ready(rest_url(settings) + "/readyz")
    return await grpc_serving(address(settings, name))


def programs(
    settings: config.Settings, home: Home, names: Iterable[str], env: Mapping[str, str]
) -> list[Program]:
    """How to run each service; `env` is the whole environment of the children."""

    def program(name: str) -> Program:
        async def answers() -> bool:
            return await healthy(settings, name)

        return Program(
            name=name,
            kind="service",
            argv=(sys.executable, "-P", "-m", f"services.{name}"),
            env=env,
            cwd=Path.cwd(),
            log=home.log_file(name),
            address=address(settings, name),
            healthy=answers,
            grace_seconds=settings.drain_seconds + 10,
        )

    return [program(name) for name in names]


def check_ports(settings: config.Settings, names: Iterable[str]) -> None:
    """Refuses to start where another program listens already. Raises PortTaken, naming all such ports."""
    wanted: list[tuple[int, str, str]] = []
    for name in names:
        if name == GATEWAY:
            wanted.append((settings.port, "REST", "REGULARS_PORT"))
        else:
            wanted.append((settings.grpc_port_of(name), f"gRPC of {name}", "REGULARS_GRPC_PORT"))
        wanted.append((settings.metrics_port_of(name), f"metrics of {name}", "REGULARS_METRICS_PORT"))
    taken = [
        f"port {port} ({what}) is taken: move it by {variable}"
        for port, what, variable in wanted
        if port and not port_is_free(settings.bind, port)
    ]
    if taken:
        raise PortTaken("; ".join(taken) + ".")
