"""What an operator does before agents run: `otway topics`, `otway keys`, `otway provision`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer import Argument, Option

from chaos.lab import draw_town
from console import logs
from console.outside import clock, random
from console.roles import keyed_codec
from console.settings import Settings, read_settings
from protocol.checks import Refused
from protocol.profile import HARDENED
from storage import key_file
from storage.provisioning import Provisioned, provision_network
from storage.redis_store import RedisStore
from storage.users_file import Device, UsersBroken, read_users, write_users
from topics.bus import Inbound
from topics.catalogue import SHARED, catalogue
from topics.codec import decode
from topics.kafka_admin import create_topics, list_topics
from topics.kafka_admin import tail as tail_topics

topics_app = typer.Typer(help="The topics on Kafka.", no_args_is_help=True)
keys_app = typer.Typer(help="The file of key-encryption keys.", no_args_is_help=True)

Json = Annotated[bool, Option("--json", help="Print JSON and nothing else.")]


def _settings() -> Settings:
    settings = read_settings(os.environ)
    logs.configure(settings.log, HARDENED, quiet=True)
    return settings


@topics_app.command("create")
def create(
    *,
    users: Annotated[Path | None, Option(help="An inbox for each UE host of this users file.")] = None,
    host: Annotated[list[str] | None, Option(help="An inbox for this UE host; may be repeated.")] = None,
) -> None:
    """Create the topics of the catalogue and an inbox for each UE host. Those that exist stay as they are."""
    settings = _settings()
    hosts = [*(host or ()), *(device.host for device in (read_users(users) if users else ()))]
    topics = catalogue(list(dict.fromkeys(hosts)))
    created = asyncio.run(create_topics(settings.kafka_settings, topics, replication=settings.replication))
    for topic in topics:
        typer.echo(f"{'created' if topic.name in created else 'exists '}  {topic.name}")
    if not hosts:
        typer.echo("no UE host was named (--users or --host), so nobody has an inbox yet")


@topics_app.command("list")
def list_(*, as_json: Json = False) -> None:
    """All topics of otway on this broker, with their partitions and how many records they hold."""
    states = asyncio.run(list_topics(_settings().kafka_settings))
    for state in states:
        if as_json:
            typer.echo(msgspec.json.encode(msgspec.to_builtins(state)))
        else:
            typer.echo(f"{state.name:24}{state.partitions:4} partitions {state.records:10} records")
    if not states and not as_json:
        typer.echo("none: `otway topics create` makes them")


@topics_app.command("tail")
def tail(
    topic: Annotated[list[str] | None, Argument(help="Which ones; all that are shared when none.")] = None,
    *,
    from_beginning: Annotated[bool, Option("--from-beginning", help="Old records too.")] = False,
    count: Annotated[int | None, Option(min=1, help="Stop after so many records.")] = None,
    as_json: Json = False,
) -> None:
    """Messages as they come. Keys are not in them; seals are shown by their length."""

    async def follow() -> None:
        names = topic or [each.name for each in SHARED]
        async with tail_topics(_settings().kafka_settings, names, from_beginning=from_beginning) as records:
            shown = 0
            async for record in records:
                typer.echo(_json(record) if as_json else _line(record))
                shown += 1
                if shown == count:
                    return

    asyncio.run(follow())


@keys_app.command("init")
def init() -> None:
    """Draw a key-encryption key into a new file of mode 0600 (OTWAY_KEY_FILE). Nothing is overwritten."""
    path = _settings().key_file
    path.parent.mkdir(parents=True, exist_ok=True)
    key = key_file.create(path, random, clock())
    typer.echo(f"{path}: made, with the key {key.id.hex()}. Keep a copy where the store's copies are not.")


@keys_app.command("add")
def add() -> None:
    """Put a new key last: it opens, and seals nothing yet. Restart all agents, then promote it."""
    path = _settings().key_file
    typer.echo(f"{path}: added {key_file.add(path, random, clock()).id.hex()}")


@keys_app.command("promote")
def promote() -> None:
    """Put the last key first: after the next restart of all agents it seals."""
    path = _settings().key_file
    typer.echo(f"{path}: {key_file.promote(path).id.hex()} seals from the next restart on")


def provision(
    users: Annotated[Path, Argument(help="The users file: identities, devices, their keys (TOML).")],
    *,
    draw: Annotated[
        list[str] | None, Option(help="Make the file first, with fresh keys for this user; may be repeated.")
    ] = None,
    restored: Annotated[
        bool, Option("--restored", help="The store comes from a copy: refuse tokens from before now.")
    ] = False,
) -> None:
    """Write subscribers, devices and network functions into the store. It takes nothing away."""
    settings = _settings()
    if draw:
        _draw_users(users, draw)
    devices = read_users(users)
    done = asyncio.run(_provision(settings, devices, restored=restored))
    typer.echo(
        f"{len(devices)} devices: {done.added} records added, {done.changed} changed, "
        f"{done.unchanged} as they were"
    )


async def _provision(settings: Settings, devices: tuple[Device, ...], *, restored: bool) -> Provisioned:
    codec = keyed_codec(settings, random)
    store = RedisStore(settings.redis_settings)
    try:
        return await provision_network(store, codec, devices, clock(), random, restored=restored)
    finally:
        await store.close()


def _draw_users(path: Path, names: list[str]) -> None:
    """A new users file, mode 0600."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsersBroken(f"{path} is there already, and nothing was changed: leave --draw out") from None
    with os.fdopen(file, "w") as opened:
        opened.write(write_users(draw_town(names, random)))


def _line(record: Inbound) -> str:
    where = f"{record.topic}/{record.partition}@{record.offset}"
    try:
        fields = msgspec.structs.asdict(decode(record.value))
    except Refused as refused:
        return f"{where}  malformed: {refused.detail}"
    name = type(decode(record.value)).__name__
    said = "  ".join(f"{field}={_plain(value)}" for field, value in fields.items() if value is not None)
    return f"{where}  {name}  {said}"


def _json(record: Inbound) -> bytes:
    try:
        message: Any = msgspec.to_builtins(decode(record.value), enc_hook=str)
    except Refused as refused:
        message = {"malformed": refused.detail}
    where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return msgspec.json.encode({**where, "message": message})


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 16 else f"({len(value)} octets)"
    return str(value)
