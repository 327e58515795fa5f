"""A deployment of real processes on real servers: what `otway run` starts, each killed as a process is."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from console.calls.switchboard import Switchboard, switchboard
from storage import key_file
from storage.records import RecordCodec
from storage.redis_store import RedisSettings
from storage.wrapping import Wrapping
from tests.servers import ROOT, Servers
from topics.catalogue import REPORTS, Topic
from topics.kafka_clients import KafkaSettings
from topics.messages import Message, Report, ReportEvent

_databases = itertools.count(1)  # one of Redis's numbered databases for each deployment
SESSION_TIMEOUT_S: Final = 2.0
_SEEN_WITHIN_S: Final = 30.0


async def until(true: Callable[[], Awaitable[object]]) -> None:
    """Returns when it is so: for what nobody tells."""
    async with asyncio.timeout(_SEEN_WITHIN_S):
        while not await true():  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Overheard:
    """What came by on the bus since one began to listen, reports and messages in their order."""

    board: Switchboard
    passed: list[tuple[str, Message]] = field(default_factory=list)  # with the topic's name

    async def until(self, true: Callable[[], object], what: str) -> None:
        """Returns when what has passed makes it true."""
        assert await self.board.until(true, _SEEN_WITHIN_S), f"{what}: not seen in {_SEEN_WITHIN_S:g} s"

    async def until_told(self, device: str, event: ReportEvent, call: str | None = None) -> Report:
        """The device's first report of this event, of this call if one is named (C in hexadecimal)."""

        def told() -> list[Report]:
            return [
                report
                for report in self.board.reports
                if (report.device, report.event) == (device, event)
                and (call is None or (report.call or b"").hex() == call)
            ]

        await self.until(told, f"{event} of {device}")
        return told()[0]


class Network:
    """A directory with key file and users file, the environment of its processes, and the processes."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        self.servers = servers
        self.directory = directory
        self.store_url = f"{servers.redis_url.rpartition('/')[0]}/{next(_databases)}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTWAY_")},
            "OTWAY_KAFKA": servers.kafka,
            "OTWAY_STORE": self.store_url,
            "OTWAY_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "PYTHONPATH": str(ROOT),
        }
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._said: dict[str, asyncio.Task[bytes]] = {}  # read all the time: a full pipe would stop an agent

    @property
    def redis_settings(self) -> RedisSettings:
        return RedisSettings(url=self.store_url)

    @property
    def kafka_settings(self) -> KafkaSettings:
        return KafkaSettings(bootstrap=self.servers.kafka, session_timeout_s=SESSION_TIMEOUT_S)

    @property
    def codec(self) -> RecordCodec:
        """Opens what the agents have stored."""
        return RecordCodec(Wrapping(key_file.read(self.directory / "secrets" / "keys.toml"), os.urandom))

    async def set_up(self, *names: str) -> None:
        """An operator's first steps, for users with these devices and a mailbox."""
        await self.otway("keys", "init")
        await self.otway("provision", "users.toml", *(part for name in names for part in ("--draw", name)))
        await self.otway("topics", "create", "--users", "users.toml")

    @asynccontextmanager
    async def overhear(self, *topics: Topic) -> AsyncIterator[Overheard]:
        """Reports, and all messages of these topics, from now on."""
        passed: list[tuple[str, Message]] = []

        def note(topic: str, message: Message) -> None:
            passed.append((topic, message))

        async with switchboard(self.kafka_settings, [REPORTS, *topics], note) as board:
            yield Overheard(board, passed)

    async def otway(self, *arguments: str, expect: int | None = 0) -> str:
        """Run a command to its end; standard output and error."""
        process = await self._start(*arguments)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 120)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if expect is not None:
            assert process.returncode == expect, output.decode()
        return output.decode()

    async def run(self, name: str, *arguments: str) -> None:
        """Start an agent; returns when it says that it runs and holds its partitions."""
        process = await self._start("run", *arguments)
        self._processes[name] = process
        assert process.stdout is not None
        seen = ""
        async with asyncio.timeout(60):
            while "partitions" not in seen:
                line = (await process.stdout.readline()).decode()
                seen += line
                assert line, f"{name} ended: {seen}"
        self._said[name] = asyncio.create_task(process.stdout.read())

    async def kill(self, name: str) -> None:
        """SIGKILL: it finishes nothing."""
        process = self._processes.pop(name)
        process.kill()
        await process.wait()
        if name in self._said:
            await self._said.pop(name)

    async def stop(self, name: str) -> str:
        """SIGTERM: it finishes its batch and leaves. Returns what it said."""
        process = self._processes.pop(name)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            output = await self._said.pop(name)
            code = await process.wait()
        assert code == 0, output.decode()
        return output.decode()

    async def leave(self) -> str:
        """SIGTERM to all. Returns what they said."""
        return "".join(await asyncio.gather(*(self.stop(name) for name in list(self._processes))))

    async def stop_all(self) -> None:
        for name in list(self._processes):
            await self.kill(name)

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console.main", *arguments),
            cwd=self.directory,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
