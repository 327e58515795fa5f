"""What an operator does before and while agents run: `otway topics`, `otway keys`, `otway provision`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from typer import Argument, Option

from chaos.lab import draw_functions, draw_town
from console import logs
from console.hosting.roles import keyed_codec
from console.mistakes import Mistake
from console.operating.audits import carried_out
from console.operating.known_keys import KnownKey, StoredKey, key_book
from console.operating.lag import inbox_lags, lines
from console.operating.showing import as_json as json_of
from console.operating.showing import line, printable
from console.outside import clock, random
from console.settings import SETTINGS_FILE, Settings, read_settings
from protocol.names import KeyId
from protocol.profile import HARDENED
from storage import key_file
from storage.provisioning import Provisioned, provision_network
from storage.redis_store import RedisStore
from storage.users_file import Device, UsersBroken, read_users, ue_hosts, write_users
from topics.catalogue import SHARED, catalogue
from topics.kafka_admin import create_topics, list_topics
from topics.kafka_admin import tail as tail_topics
from topics.messages import AuditEvent, Revoke

topics_app = typer.Typer(help="The topics on Kafka.", no_args_is_help=True)
keys_app = typer.Typer(
    help="The file of key-encryption keys, and the subscribers' key ids.", no_args_is_help=True
)

Json = Annotated[bool, Option("--json", help="Print JSON and nothing else.")]


def operator_settings() -> Settings:
    """The environment, and what the set-up of a cluster has written for the operator; sets up logging.

    Raises SettingsBroken.
    """
    settings = read_settings(os.environ, SETTINGS_FILE)
    logs.configure(settings.log, HARDENED, quiet=True)
    return settings


@topics_app.command("create")
def create(
    *,
    users: Annotated[Path | None, Option(help="An inbox for each UE host of this users file.")] = None,
    host: Annotated[list[str] | None, Option(help="An inbox for this UE host; may be repeated.")] = None,
) -> None:
    """Create the topics of the catalogue and an inbox for each UE host. Those that exist stay as they are."""
    settings = operator_settings()
    hosts = [*(host or ()), *(ue_hosts(read_users(users)) if users else ())]
    topics = catalogue(list(dict.fromkeys(hosts)))
    created = asyncio.run(create_topics(settings.kafka_settings, topics, replication=settings.replication))
    for topic in topics:
        typer.echo(f"{'created' if topic.name in created else 'exists '}  {topic.name}")
    if not hosts:
        typer.echo("no UE host was named (--users or --host), so nobody has an inbox yet")


@topics_app.command("list")
def list_(*, as_json: Json = False) -> None:
    """All topics of otway on this broker, with their partitions and how many records they hold."""
    states = asyncio.run(list_topics(operator_settings().kafka_settings))
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
        async with tail_topics(
            operator_settings().kafka_settings, names, from_beginning=from_beginning
        ) as records:
            shown = 0
            async for record in records:
                typer.echo(json_of(record) if as_json else line(record))
                shown += 1
                if shown == count:
                    return

    asyncio.run(follow())


@topics_app.command("lag")
def lag(
    *,
    by_partition: Annotated[bool, Option("--partitions", help="A line for each partition.")] = False,
    as_json: Json = False,
) -> None:
    """How far each agent is in its inbox: what it takes next, where the end is, how many are between."""
    found = asyncio.run(inbox_lags(operator_settings().kafka_settings, by_partition=by_partition))
    for each in map(msgspec.json.encode, found) if as_json else lines(found):
        typer.echo(each)


@keys_app.command("init")
def init() -> None:
    """Draw a key-encryption key into a new file of mode 0600 (OTWAY_KEY_FILE). Nothing is overwritten."""
    path = operator_settings().key_file
    path.parent.mkdir(parents=True, exist_ok=True)
    key = key_file.create(path, random, clock())
    typer.echo(f"{path}: made, with the key {key.id.hex()}. Keep a copy where the store's copies are not.")


@keys_app.command("add")
def add() -> None:
    """Put a new key last: it opens, and seals nothing yet. Restart all agents, then promote it."""
    path = operator_settings().key_file
    typer.echo(f"{path}: added {key_file.add(path, random, clock()).id.hex()}")


@keys_app.command("promote")
def promote() -> None:
    """Put the last key first: after the next restart of all agents it seals."""
    path = operator_settings().key_file
    typer.echo(f"{path}: {key_file.promote(path).id.hex()} seals from the next restart on")


@keys_app.command("revoke")
def revoke(key_id: Annotated[str, Argument(help="As `otway keys list` and the audit name it.")]) -> None:
    """Have the KMS refuse a key id from now on. Calls under it end within seconds, conferences go on without
    its owner, and messages left under it can no longer be heard.

    A handset that cannot be reached goes on until its key ends, an hour at most.

    Exit code 0: it is revoked, now or since long. 1: the KMS has no such key id, or has not answered.
    """
    try:
        msgspec.convert(key_id, KeyId)
    except msgspec.ValidationError:
        raise Mistake(f"{printable(key_id)!r} is no key id: 1 to 255 visible ASCII characters") from None
    order = Revoke(key_id=key_id, order=random(16))
    noted = asyncio.run(carried_out(operator_settings().kafka_settings, order))
    if noted.event is not AuditEvent.REVOKED:
        raise Mistake(f"{key_id} was not revoked: {noted.code} at the KMS, which knows what was attached")
    typer.echo(f"{key_id} of {noted.impi}: revoked; calls under it end")


@keys_app.command("list")
def list_keys(
    *,
    stored: Annotated[
        bool,
        Option("--stored", help="The keys of messages that were left: whose, until when, how often fetched."),
    ] = False,
    as_json: Json = False,
) -> None:
    """The key ids that were attached, used in a grant or revoked, by the audit: what each is for and until
    when, and whose it is. No keys: those stay inside.

    A pre-shared key is here once it was used.
    """
    book = asyncio.run(key_book(operator_settings().kafka_settings))
    rows: list[StoredKey | KnownKey] = [*(book.stored(clock()) if stored else book.keys(clock()))]
    for row in rows:
        typer.echo(msgspec.json.encode(row.told()) if as_json else row.line())
    if not rows and not as_json:
        nothing = "no message was left" if stored else "nobody has attached or been granted a key"
        typer.echo(f"none: {nothing}")


def provision(
    users: Annotated[Path, Argument(help="The users file: identities, devices, their keys (TOML).")],
    *,
    draw: Annotated[
        list[str] | None,
        Option(
            help="Make the file first: fresh keys for this user, a mailbox, a transcoder and a focus. May be "
            "repeated."
        ),
    ] = None,
    restored: Annotated[
        bool, Option("--restored", help="The store comes from a copy: refuse tokens from before now.")
    ] = False,
) -> None:
    """Write subscribers, devices and network functions into the store. It takes nothing away."""
    settings = operator_settings()
    if draw:
        _draw_users(users, draw)
    devices = read_users(users)
    done = asyncio.run(provision_all(settings, devices, restored=restored))
    typer.echo(
        f"{len(devices)} devices: {done.added} records added, {done.changed} changed, "
        f"{done.unchanged} as they were"
    )


async def provision_all(settings: Settings, devices: tuple[Device, ...], *, restored: bool) -> Provisioned:
    """Write these subscribers into the store. Raises KeyFileBroken, RecordBroken and the store's errors."""
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
        opened.write(write_users((*draw_town(names, random), *draw_functions(random))))
