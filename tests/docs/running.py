"""Runs a document's examples as its reader would: one shell and one Python for the whole document."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from libs.config import ROOT
from tests.docs.reading import Example, agrees
from tests.platform import Stack

SECONDS = 60.0
EVENTUALLY_SECONDS = 10.0
_END = "-- end of example --"
_PYTHON = f"""
import json, sys, traceback
space = {{"__name__": "__main__"}}
for line in sys.stdin:
    code = 0
    try:
        exec(compile(json.loads(line), "<example>", "exec"), space)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        code = 1
    print("\\n{_END}", code, flush=True)
"""


class Terminal:
    """The reader's terminal.

    `names` turns what the document calls things into what they are in this stack; `prefix` is that of its events.
    """

    def __init__(self, names: Mapping[str, str], prefix: str, env: Mapping[str, str]) -> None:
        self._names = names
        self._prefix = prefix
        self._env = dict(env)
        self._shell: asyncio.subprocess.Process | None = None
        self._python: asyncio.subprocess.Process | None = None

    async def run(self, example: Example) -> None:
        """Runs an example. Raises AssertionError if it fails or says something else than the document."""
        code, actual = await self._run(example)
        ends = asyncio.get_running_loop().time() + EVENTUALLY_SECONDS
        while not _right(example, code, actual):
            waited = asyncio.get_running_loop().time() >= ends
            if not example.eventually or waited:
                message = f"{example.place}: exit {code}\n{actual}\n--- promised ---\n{example.output or ''}"
                raise AssertionError(message)
            await asyncio.sleep(0.1)
            code, actual = await self._run(example)

    async def close(self) -> None:
        """Ends the shell and the Python."""
        for process in (self._shell, self._python):
            if process is not None:
                assert process.stdin is not None
                process.stdin.close()
                await process.wait()

    async def _run(self, example: Example) -> tuple[int, str]:
        text = example.text
        for documented, actual in self._names.items():
            text = text.replace(documented, actual)
        if example.language == "sh":
            if self._shell is None:
                self._shell = await _start("bash", "--norc", env=self._env)
            answer = await _ask(self._shell, f"{text}\nprintf '\\n{_END} %s\\n' $?\n")
        else:
            if self._python is None:
                self._python = await _start(sys.executable, "-c", _PYTHON, env=await self._exported())
            answer = await _ask(self._python, json.dumps(text) + "\n")
        code, found = answer[0], answer[1].replace("\r\n", "\n")
        for documented, actual in self._names.items():
            found = found.replace(actual, documented)
        return code, found.replace(f"{self._prefix}customers.", "customers.")

    async def _exported(self) -> dict[str, str]:
        """The variables that the shell has exported so far."""
        if self._shell is None:
            return self._env
        _, text = await _ask(self._shell, f"env -0 | base64 -w0\nprintf '\\n{_END} %s\\n' $?\n")
        pairs = base64.b64decode(text).decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)


@asynccontextmanager
async def terminal_of(stack: Stack, slug: str, directory: Path) -> AsyncIterator[Terminal]:
    """A terminal in this repository, for a running stack, where the tenant `corner` is the one named `slug`."""
    command = directory / "regulars"  # for checkouts whose environment has no command of its own
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m libs.run.cli "$@"\n')
    command.chmod(0o700)
    names = {
        "create corner": f"create {slug}",
        "get corner": f"get {slug}",
        "--tenant corner": f"--tenant {slug}",
        "Tenant corner (corner)": f"Tenant {slug} ({slug})",
        '"slug": "corner"': f'"slug": "{slug}"',
        "'slug': 'corner'": f"'slug': '{slug}'",
        "localhost:8080": stack.rest.removeprefix("http://"),
        "localhost:9090": stack.address("customers"),
        "localhost:9091": stack.address("loyalty"),
        "localhost:9100": f"127.0.0.1:{stack.runtimes['customers'].metrics_port}",
    }
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REGULARS_")},
        **stack.env,
        "PATH": f"{os.environ['PATH']}:{directory}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        "no_proxy": "*",
        "NO_PROXY": "*",
        "COLUMNS": "200",
    }
    found = Terminal(names, stack.settings.prefix, env)
    try:
        yield found
    finally:
        await found.close()


async def _start(*argv: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    pipe, merged = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    return await asyncio.create_subprocess_exec(
        *argv, cwd=ROOT, env=dict(env), stdin=pipe, stdout=pipe, stderr=merged, limit=1 << 24
    )


async def _ask(process: asyncio.subprocess.Process, text: str) -> tuple[int, str]:
    """Exit code and output of some lines."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text.encode())
    await process.stdin.drain()
    lines: list[str] = []
    async with asyncio.timeout(SECONDS):
        while True:
            line = (await process.stdout.readline()).decode()
            assert line, "it ended: " + "".join(lines)
            if line.startswith(_END):
                return int(line.removeprefix(_END)), "".join(lines)
            lines.append(line)


def _right(example: Example, code: int, actual: str) -> bool:
    return code == 0 and (example.output is None or agrees(example.output, actual))
