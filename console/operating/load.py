"""`otway load`: calls at a steady rate while something breaks, and the account of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from typer import Option

from chaos.load import Load, LoadSettings, NotRegistered
from chaos.load_account import GAP_S, Outcome
from console import logs
from console.hosting.roles import until_told_to_stop
from console.hosting.running import Lab, served
from console.mistakes import Mistake
from console.outside import clock, random
from console.settings import read_settings
from storage.users_file import Device, read_users

_TELL_EVERY_S: Final = 5.0
_GAPS_SHOWN: Final = 20


def load(
    *,
    users: Annotated[Path, Option(help="The users file, for the handsets' keys.")] = Path("users.toml"),
    host: Annotated[str, Option(help="The UE host: half of its handsets call the other half.")] = "load",
    rate: Annotated[float, Option(min=0.01, help="Calls a second.")] = 20.0,
    seconds: Annotated[float, Option(min=0.0, help="How long to dial.")] = 180.0,
    hold: Annotated[float, Option(min=0.0, help="Seconds from a call's coming up until its end.")] = 2.0,
    drain: Annotated[float, Option(min=0.0, help="Seconds that the last calls may take to end.")] = 120.0,
    out: Annotated[Path | None, Option(help="Keep the outcome in this file, as JSON.")] = None,
    lab: Lab = False,
    as_json: Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")] = False,
) -> None:
    """Calls at a steady rate on Kafka, while somebody breaks agents, and what became of each.

    The handsets are real, their media engine opens no sockets. SIGTERM: no more dials, 5 s for calls to end.
    Exit code 0: each call is accounted for, failed or not, and the ends of each hold one key of its own.
    """
    settings = read_settings(os.environ)
    profile = settings.admitted(lab=lab)
    logs.configure(settings.log, profile, quiet=True)
    if out is not None:  # before anything is worth keeping
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()
    wish = LoadSettings(
        host=host,
        devices=_crowd(users, host),
        rate=rate,
        seconds=seconds,
        hold_s=hold,
        drain_s=drain,
        profile=profile,
    )
    calls = Load(wish, settings.kafka_settings, clock=clock, random=random)
    try:
        served(_run(calls, tell=not as_json))
    except NotRegistered as problem:
        raise Mistake(str(problem)) from None
    finally:  # what is known is told, whatever has ended the load
        outcome = calls.outcome()
        if outcome.dials:
            _show(outcome, out, as_json=as_json)
    if not outcome.dials:
        raise Mistake("stopped before the first dial")
    raise typer.Exit(0 if outcome.good else 1)


def _crowd(users: Path, host: str) -> tuple[Device, ...]:
    """Raises UsersBroken, Mistake."""
    devices = tuple(device for device in read_users(users) if device.host == host)
    if len(devices) < 2 or len({device.identity for device in devices}) < len(devices):
        raise Mistake(
            f"{users}: a load needs two or more devices on the UE host {host!r}, each of a user of its own"
        )
    return devices


async def _run(calls: Load, *, tell: bool) -> None:
    """Raises NotRegistered, BusUnavailable, BusRefused, GaveUp."""
    telling = asyncio.create_task(_tell(calls)) if tell else None
    try:
        await calls.run(until_told_to_stop())
    finally:
        if telling is not None:
            telling.cancel()


async def _tell(calls: Load) -> None:
    """Where the load stands, every few seconds, on standard error."""
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        typer.echo(calls.account.progress(), err=True)


def _show(outcome: Outcome, out: Path | None, *, as_json: bool) -> None:
    octets = msgspec.json.encode(outcome)
    if out is not None:
        out.write_bytes(msgspec.json.format(octets) + b"\n")
    if as_json:
        typer.echo(octets)
        return
    table = Table(show_header=False)
    for row in _rows(outcome):
        table.add_row(*row)
    Console().print(table)


def _rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    yield "dialled", str(outcome.dials)
    yield "came up", str(outcome.came_up)
    yield "confirmed", str(outcome.confirmed)
    for reason, count in sorted(outcome.failed.items()):
        yield f"failed: {reason}", str(count)
    yield "not accounted for", str(outcome.unaccounted)
    yield "ends with different keys", str(outcome.disagreeing)
    yield "two keys at one end", str(outcome.two_keys)
    yield "a key of two calls", str(outcome.shared_keys)
    yield "confirmed, one end without media", str(outcome.without_media)
    if outcome.set_up_ms is not None:
        times = outcome.set_up_ms
        yield "set-up p50, p95, p99, max", f"{times.p50}, {times.p95}, {times.p99}, {times.max} ms"
    yield "latest dial", f"{outcome.late_ms_max} ms late"
    for gap in outcome.gaps[:_GAPS_SHOWN]:
        yield f"no call came up for over {GAP_S} s", f"{gap.length_s} s from {gap.start_s} s on"
    if len(outcome.gaps) > _GAPS_SHOWN:
        yield "and more such gaps", str(len(outcome.gaps) - _GAPS_SHOWN)
