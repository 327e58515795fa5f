"""A deployment of real processes on real servers: what `otway run` starts, each killed as a process is."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Final

from storage import key_file
from storage.records import RecordCodec
from storage.redis_store import RedisSettings
from storage.wrapping import Wrapping
from tests.servers import ROOT, Servers

_databases = itertools.count(1)  # one of Redis's numbered databases for each deployment
SESSION_TIMEOUT_S: Final = 2.0


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
    def codec(self) -> RecordCodec:
        """Opens what the agents have stored."""
        return RecordCodec(Wrapping(key_file.read(self.directory / "secrets" / "keys.toml"), os.urandom))

    async def otway(self, *arguments: str, expect: int | None = 0) -> str:
        """Run a command to its end; standard output and error."""
        process = await self._start(*arguments)
        output, _ = await asyncio.wait_for(process.communicate(), 120)
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
