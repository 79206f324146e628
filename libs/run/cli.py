"""`regulars`: starts, looks at and stops a stack, hosts services, and does an operator's errands."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from functools import cache
from typing import Annotated, Any

import typer
from rich.table import Table

from libs import config
from libs.run import terminal
from libs.run.stack.faults import AlreadyRunning, BadConfiguration, NotHealthy, NotRunning
from libs.run.stack.home import Home
from libs.run.terminal import Json, faults_told, out, print_json, say

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 running already or not running, 4 port taken, "
    "5 program missing, 6 data of a newer version, 7 wrong settings."
)
STATE_COLOURS = {"healthy": "green", "unhealthy": "red", "restarting": "yellow"}

app = typer.Typer(
    no_args_is_help=True, add_completion=False, epilog=EXIT_CODES, pretty_exceptions_enable=False
)


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all is healthy.")] = False,
) -> None:
    """Start the servers and every service, and keep them running. Ctrl-C stops all."""
    with faults_told():
        if detach:
            _up_detached()
        else:
            _up()


@app.command()
def down(
    remove_data: Annotated[bool, typer.Option("--remove-data", help="Also remove all that it kept.")] = False,
) -> None:
    """Stop the stack that runs in REGULARS_HOME."""
    from libs.run.stack import postgres, status

    with faults_told():
        stopped = terminal.run(status.down(_home(), say))
        if remove_data:
            postgres.discard(_home())
            shutil.rmtree(_home().root, ignore_errors=True)
    say("Stopped." if stopped else f"No stack runs in {_home().root}.")


@app.command("status")
def show_status(as_json: Json = False) -> None:
    """Show what runs. Exits with 0 only if all of it is healthy, with 3 if nothing runs."""
    from libs.run.stack import status

    with faults_told():
        found = terminal.run(status.status(_home()))
    if as_json:
        print_json(found.as_json())
    elif found.phase == "stopped":
        say(f"No stack runs in {found.home}.")
    else:
        table = Table("name", "state", "address", "pid", "up", "restarts", box=None, pad_edge=False)
        for member in found.members:
            colour = STATE_COLOURS[member.state]
            restarts = f"{member.restarts}" + (f" (last exit {member.last_exit})" if member.restarts else "")
            up_for = time.strftime("%H:%M:%S", time.gmtime(member.up_seconds))
            pid = str(member.pid or "-")
            table.add_row(member.name, f"[{colour}]{member.state}[/]", member.address, pid, up_for, restarts)
        out.print(table)
        out.print(f"{found.phase}, home {found.home}", markup=False)
    if found.phase == "stopped":
        raise typer.Exit(NotRunning.exit_code)
    if not found.healthy():
        raise typer.Exit(NotHealthy.exit_code)


@app.command()
def serve(
    services: Annotated[list[str], typer.Argument(help="Names of services, or all.")],
) -> None:
    """Host services in this process, on the servers of the stack here or those that the settings name."""
    from libs.run.host import host
    from libs.run.stack.members import present

    known = present()
    names = known if services == ["all"] else services
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise typer.BadParameter(
            f"no such service: {', '.join(unknown)} (there are: {', '.join(known)}, all)"
        )
    with faults_told():
        terminal.run(host(names, terminal.environment_of_stack(), say))


@app.command()
def migrate(as_json: Json = False) -> None:
    """Make roles, schemas and tables, on REGULARS_POSTGRES_URL or the stack here."""
    from libs.migrate import MigrationFailed, SchemaTooNew
    from libs.migrate import migrate as run_migrations
    from libs.run.stack.faults import DataTooNew
    from libs.run.stack.members import GATEWAY, present

    with faults_told():
        found = terminal.settings(terminal.environment_of_stack())
        try:
            applied = run_migrations(
                found, [name for name in present() if name != GATEWAY], _silent if as_json else say
            )
        except SchemaTooNew as error:
            raise DataTooNew(str(error)) from error
        except MigrationFailed as error:
            raise NotHealthy(str(error)) from error
    if as_json:
        print_json({"applied": applied})
    else:
        say(f"{len(applied)} steps applied." if applied else "Nothing to do.")


@cache
def whole() -> typer.Typer:
    """The command with all its groups."""
    from libs.run.commands import access, demo, events, keys

    app.command("demo")(demo.command(_up_detached))
    app.command("token")(access.mint)
    app.add_typer(access.tenants, name="tenant")
    app.add_typer(events.app, name="events")
    app.add_typer(keys.app, name="keys")
    return app


def main() -> None:
    """The command `regulars`."""
    whole()(prog_name="regulars")


def _silent(_line: str) -> None:
    return


def _home() -> Home:
    return Home(terminal.settings().home.resolve())


def _up() -> None:
    from libs.run.stack.supervisor import Supervisor

    supervisor = Supervisor(terminal.settings(), config.process_environment(), say)
    began = time.monotonic()
    try:
        asyncio.run(supervisor.run(lambda stack: _welcome(stack.addresses(), time.monotonic() - began)))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    say("Stopped.")


def _welcome(addresses: dict[str, str], seconds: float) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, address in addresses.items():
        if address.startswith("http"):
            table.add_row("REST", f"{address}/api/v1")
            table.add_row("documentation", f"{address}/docs")
        else:
            table.add_row(f"gRPC {name}", address)
    out.print(f"\nRegulars is up ({seconds:.1f} s).", style="bold green")
    out.print(table)
    out.print(
        "`regulars down` stops it, and so does Ctrl-C in its terminal."
        " The first tenant: `regulars tenant create corner`.\n",
        markup=False,
    )


def _up_detached() -> None:
    """Starts `regulars up` apart from this terminal and shows what it says until it is up."""
    home = _home()
    if home.held():
        raise AlreadyRunning(f"A stack is already running in {home.root}. Stop it: `regulars down`.")
    home.prepare()
    log = home.log_file("stack")
    with log.open("ab") as file, log.open("rb") as seen:
        seen.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "libs.run.cli", "up"],
            env=_with_path(config.process_environment()),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = None
        while code is None and not _ready(home.read_run(), child.pid):
            code = child.poll()
            sys.stderr.write(seen.read().decode(errors="replace"))
            sys.stderr.flush()
            time.sleep(0.1)
        sys.stderr.write(seen.read().decode(errors="replace"))
    if code is not None:
        raise typer.Exit(code or BadConfiguration.exit_code)


def _ready(run: dict[str, Any], supervisor: int) -> bool:
    return bool(run and run["phase"] == "ready" and run["supervisor"]["pid"] == supervisor)


def _with_path(env: dict[str, str]) -> dict[str, str]:
    path = (str(config.ROOT), str(config.ROOT / "gen"), env.get("PYTHONPATH", ""))
    return {**env, "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep)}


if __name__ == "__main__":
    main()
