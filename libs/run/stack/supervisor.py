"""`regulars up`: starts the servers, migrates, starts every service, and keeps all of them running."""

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Mapping

from libs import config
from libs.migrate import MigrationFailed, SchemaTooNew, migrate
from libs.run.stack import members, secrets, servers
from libs.run.stack.faults import DataTooNew, NotHealthy
from libs.run.stack.home import Home
from libs.run.stack.keeper import Keeper
from libs.run.stack.leftovers import stop_leftovers
from libs.run.stack.process import identity

Say = Callable[[str], None]


class Supervisor:
    """One stack, from its start to its end. `env` is the environment that the children get a copy of."""

    def __init__(self, settings: config.Settings, env: Mapping[str, str], say: Say) -> None:
        self.home = Home(settings.home.resolve())
        self.settings = dataclasses.replace(settings, home=self.home.root)
        self._env = env
        self._say = say
        self._phase = "starting"
        self._servers: list[Keeper] = []
        self._services: list[Keeper] = []
        self._stop = asyncio.Event()
        self._began = time.time()

    async def run(self, ready: Callable[["Supervisor"], None]) -> None:
        """Starts everything, calls `ready`, stays until it is told to stop, and stops everything.

        Raises StackFault if the stack cannot be started; what had started is stopped first.
        """
        loop = asyncio.get_running_loop()
        lock = self.home.hold()
        await stop_leftovers(self.home, self._say)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        try:
            starting = asyncio.create_task(self._start())
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            else:
                starting.result()
                self._set_phase("ready")
                ready(self)
                await stopped
        finally:
            await self._stop_all()
            lock.close()

    def addresses(self) -> dict[str, str]:
        """Where each service answers, the gateway first."""
        found = {keeper.program.name: keeper.program.address for keeper in self._services}
        return dict(sorted(found.items(), key=lambda item: item[0] != members.GATEWAY))

    async def _start(self) -> None:
        names = members.present()
        members.check_ports(self.settings, names)
        needed = await servers.prepare(self.settings, self.home)
        elsewhere = next((p.cwd for p in needed.programs if p.name == "postgres"), self.home.root)
        if self.home.root not in elsewhere.parents and elsewhere != self.home.root:
            self._say(f"PostgreSQL's own user cannot reach {self.home.root}: its data is in {elsewhere}.")
        self._servers = [Keeper(program, self._note, self._say) for program in needed.programs]
        await self._bring_up(self._servers)
        if not needed.redis_url:
            self._say("There is no Redis on this machine: running without a cache.")
        await self._migrate(needed.postgres_url, names)
        own = secrets.ensure(self.settings, self.home, names)
        self._say("Starting " + ", ".join(names) + " …")
        found = members.programs(self.settings, self.home, names, {**self._environment(needed), **own})
        self._services = [Keeper(program, self._note, self._say) for program in found]
        await self._bring_up(self._services)

    def _environment(self, needed: servers.Servers) -> dict[str, str]:
        """What the services are told: our own environment, and where the servers are."""
        addresses = needed.environment()
        replaced = {variable + "_FILE" for variable in addresses}
        kept = {name: value for name, value in self._env.items() if name not in replaced}
        path = os.pathsep.join((str(config.ROOT), str(config.ROOT / "gen"), kept.get("PYTHONPATH", "")))
        here = {"REGULARS_HOME": str(self.home.root), "PYTHONPATH": path.rstrip(os.pathsep)}
        return {**kept, **addresses, **here}

    async def _bring_up(self, keepers: list[Keeper]) -> None:
        for keeper in keepers:
            keeper.start()
        waits = [asyncio.create_task(keeper.until_healthy()) for keeper in keepers]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def _migrate(self, admin_url: str, names: list[str]) -> None:
        with_tables = [name for name in names if name != members.GATEWAY]
        settings = dataclasses.replace(self.settings, postgres_url=admin_url)
        try:
            applied = await asyncio.to_thread(migrate, settings, with_tables)
        except SchemaTooNew as error:
            raise DataTooNew(str(error)) from error
        except MigrationFailed as error:
            raise NotHealthy(str(error)) from error
        self._say(f"Migrated: {len(applied)} steps." if applied else "The database is up to date.")

    async def _stop_all(self) -> None:
        self._set_phase("stopping")
        if self._services or self._servers:
            self._say("Stopping …")
        last = [keeper for keeper in self._services if keeper.program.name == members.GATEWAY]
        rest = [keeper for keeper in self._services if keeper not in last]
        for group in (last, rest, self._servers[::-1]):
            await asyncio.gather(*(keeper.stop() for keeper in group))
        self.home.clear_run()

    def _set_phase(self, phase: str) -> None:
        self._phase = phase
        self._note()

    def _note(self) -> None:
        me = identity(os.getpid())
        self.home.write_run(
            {
                "phase": self._phase,
                "since": self._began,
                "supervisor": {"pid": me.pid, "started": me.started},
                "children": {
                    keeper.program.name: keeper.facts() for keeper in self._servers + self._services
                },
            }
        )
