"""How a running process shows itself: to whoever asks it by HTTP, and every two seconds on ims.status.

    /livez     200 while every loop turns                 else 503 and why
    /readyz    200 while every agent can do its work      else 503 and what is missing
    /metrics   the vitals, for Prometheus

HTTP is served by threads, so that a stuck event loop does not silence it. The key file is no part of being
ready: a process that could not read it has ended before anything is served.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST

from console.hosting.metrics import metrics_of
from console.hosting.readiness import Watched
from console.hosting.watchdog import watching
from console.settings import PREFIX, Settings, SettingsBroken
from topics.bus import Bus, BusRefused, BusUnavailable, Outbound
from topics.catalogue import STATUS, UE_STATUS, Party
from topics.codec import encode
from topics.messages import Status

log = structlog.get_logger()

BEAT_S: Final = 2.0
_BEAT_S_MAX: Final = 8.0  # after failures: each leaves a record that the bus still tries to write
_REQUEST_S: Final = 5.0  # for a client to say what it wants
_TEXT_MAX: Final = 255
_PARTITIONS_MAX: Final = 64

Page = tuple[int, str, bytes]  # status, content type, body


@contextmanager
def operated(settings: Settings, role: str, instance: str, agents: Sequence[Watched]) -> Iterator[None]:
    """What a process with agents has around them: their names on each line of its log, HTTP, the watchdog.

    Raises SettingsBroken.
    """
    structlog.contextvars.bind_contextvars(role=role, instance=instance)
    with answering(settings.operations, agents), watching(agents):
        yield


@contextmanager
def answering(address: str, agents: Sequence[Watched]) -> Iterator[int]:
    """Serve HTTP while this lasts. address: host:port, port 0 for any free one; empty: nothing is served.

    Yields the port, 0 when nothing is served. Raises SettingsBroken.
    """
    if not address:
        yield 0
        return
    place = urlsplit(f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:  # a port that is no number, or too large
        host = port = None
    if host is None or port is None or place.netloc != address:
        raise SettingsBroken(f"{PREFIX}OPERATIONS: {address!r} is not host:port, such as 127.0.0.1:9600")
    try:
        server = _Server(host, port, _pages(agents))
    except OSError as error:
        raise SettingsBroken(f"{PREFIX}OPERATIONS: {address}: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name="operations", daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@asynccontextmanager
async def telling(
    bus: Bus, agent: Watched, instance: str, *, clock: Callable[[], int]
) -> AsyncIterator[None]:
    """Send a Status every BEAT_S seconds while this lasts. clock: whole seconds since 1970 UTC."""
    task = asyncio.create_task(_keep_telling(bus, agent, instance, clock))
    try:
        yield
    finally:
        task.cancel()


async def _keep_telling(bus: Bus, agent: Watched, instance: str, clock: Callable[[], int]) -> None:
    """A status that does not get through is no error: the loop's own sends show what is wrong."""
    started, pause_s = clock(), BEAT_S
    topic = UE_STATUS if agent.role == Party.UE else STATUS
    while True:
        missing = agent.missing(time.monotonic())
        status = Status(
            role=agent.role,
            instance=instance[:_TEXT_MAX],
            at=clock(),
            started=started,
            waiting_for="; ".join(missing)[:_TEXT_MAX] or None,
            partitions=tuple(sorted(agent.vitals.partitions or ()))[:_PARTITIONS_MAX],
            lag=agent.vitals.lag.records,
            handled=agent.vitals.handled,
        )
        try:
            await bus.send([Outbound(topic.name, 0, instance.encode(), encode(status))])
            pause_s = BEAT_S
        except (BusUnavailable, BusRefused) as error:
            log.debug("status not sent", why=str(error))
            pause_s = min(2 * pause_s, _BEAT_S_MAX)
        await asyncio.sleep(pause_s)


def _pages(agents: Sequence[Watched]) -> Mapping[str, Callable[[], Page]]:
    metrics = metrics_of(agents)

    def live() -> Page:
        now = time.monotonic()
        return _verdict({agent.role: [why] for agent in agents if (why := agent.stuck(now)) is not None})

    def ready() -> Page:
        now = time.monotonic()
        return _verdict({agent.role: list(why) for agent in agents if (why := agent.missing(now))})

    return {
        "/livez": live,
        "/readyz": ready,
        "/metrics": lambda: (200, CONTENT_TYPE_LATEST, metrics()),
    }


def _verdict(missing: Mapping[str, Sequence[str]]) -> Page:
    """missing: by the role of each agent that is not as it should be."""
    body = msgspec.json.encode({"ok": not missing, "missing": missing})
    return 503 if missing else 200, "application/json", body + b"\n"


class _Server(ThreadingHTTPServer):
    """Answers GET for a few pages."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        """Raises OSError."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), partial(_Handler, pages))

    def server_bind(self) -> None:
        """Without HTTPServer's question to DNS about this host's name, which may hang and nobody needs."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  (as socketserver has it)
        """A client that went away in the middle is no news; anything else is a bug."""
        del request, client_address
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("request failed")  # noqa: LOG004  (socketserver calls this where it has caught it)


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S

    def __init__(self, pages: Mapping[str, Callable[[], Page]], *about: Any) -> None:  # noqa: ANN401  (socketserver's)
        self._pages = pages
        super().__init__(*about)

    def do_GET(self) -> None:
        """One page, or 404."""
        page = self._pages.get(urlsplit(self.path).path)
        status, kind, body = page() if page is not None else (404, "text/plain", b"no such page\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (as it is called there)
        """Nothing: a health check is no event."""
