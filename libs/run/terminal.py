"""How commands speak: to a person on a terminal, or as JSON to a script; faults end with their exit code."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from libs import config
from libs.run.stack.faults import BadConfiguration, StackFault
from libs.run.stack.home import Home

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line of progress, on standard error: standard output is for results."""
    err.print(line, markup=False)


def print_json(value: Any) -> None:
    """A result for a script."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs one command's work. Ctrl-C ends it with 130."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextmanager
def faults_told() -> Iterator[None]:
    """Turns faults that a person can act upon into a message and an exit code."""
    try:
        yield
    except StackFault as fault:
        err.print(f"[bold red]{type(fault).__name__}:[/] ", end="")
        err.print(str(fault), markup=False)
        raise typer.Exit(fault.exit_code) from None
    except config.ConfigError as fault:
        err.print(str(fault), markup=False, style="red")
        raise typer.Exit(BadConfiguration.exit_code) from None
    except PermissionError as fault:
        err.print(
            f"No permission for {fault.filename}: start as its owner, or set REGULARS_HOME.", style="red"
        )
        raise typer.Exit(BadConfiguration.exit_code) from None


def settings(env: Mapping[str, str] | None = None) -> config.Settings:
    """The settings of a command, from the environment. Raises ConfigError."""
    return config.load(config.Settings, None, env)


def environment_of_stack() -> dict[str, str]:
    """Our environment, completed by the addresses of the stack that runs here. Raises NotRunning."""
    from libs.run.stack.servers import of_running_stack  # the clients of three servers come with it

    env = config.process_environment()
    found = settings(env)
    root = found.home.resolve()
    return {**env, **of_running_stack(found, Home(root)), "REGULARS_HOME": str(root)}
