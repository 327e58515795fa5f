"""A media engine in a thread of its own with its own event loop, so that neither its 20 ms beat waits for an
agent, nor an agent for it.

    caller's loop   carry_out ->        | engine's loop
                    <- events, failures |
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol

from media.leg import MediaEvent, MediaInstruction
from protocol.transport import MediaAddress, Statistics


class MediaEngine(Protocol):
    """What engines and bridges have in common."""

    async def start(self) -> tuple[MediaAddress, ...]:
        """Bind the lines. Returns the address of each. Raises OSError."""
        ...

    def carry_out(self, instruction: MediaInstruction) -> None:
        """What an agent has decided."""
        ...

    def statistics(self) -> dict[str, Statistics]:
        """Of each open session so far, by its name."""
        ...

    async def stop(self) -> None:
        """Close all sessions and sockets."""
        ...


class Beside:
    """A MediaEngine that has another one work in its thread.

    Events come on the loop that has called `start`, in their order, the last of them before `stop` returns.
    What goes wrong in the thread, also in carrying out an instruction, is told by that loop's exception
    handler.
    """

    def __init__(
        self,
        make: Callable[[Callable[[MediaEvent], None]], MediaEngine],
        *,
        on_event: Callable[[MediaEvent], None],
    ) -> None:
        """make: the engine, from what it shall tell its events."""
        self._on_event = on_event
        self._engine = make(self._told)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._failed)
        self._caller: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="media", daemon=True)

    async def start(self) -> tuple[MediaAddress, ...]:
        """As the engine's; once. Raises OSError."""
        self._caller = asyncio.get_running_loop()
        self._thread.start()
        try:
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._engine.start(), self._loop)
            )
        except BaseException:
            await self._end()
            raise

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Soon, after what was asked before."""
        self._loop.call_soon_threadsafe(self._engine.carry_out, instruction)

    def statistics(self) -> dict[str, Statistics]:
        """Of each open session so far, by its name. Waits for the engine's thread, no longer than a tick."""
        return asyncio.run_coroutine_threadsafe(self._statistics(), self._loop).result()

    async def stop(self) -> None:
        """Close all sessions and sockets, and end the thread."""
        try:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._engine.stop(), self._loop))
        finally:
            await self._end()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    async def _statistics(self) -> dict[str, Statistics]:
        return self._engine.statistics()

    def _told(self, event: MediaEvent) -> None:
        assert self._caller is not None
        self._caller.call_soon_threadsafe(self._on_event, event)

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        assert self._caller is not None
        self._caller.call_soon_threadsafe(self._caller.call_exception_handler, context)
