"""`otway cluster`: what the one-shot services of compose.yaml run before the agents."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from console import logs
from console.clusters.cluster_secrets import SecretsWish, make_secrets
from console.mistakes import Mistake
from console.operating.administration import provision_all
from console.outside import clock, random
from console.settings import read_settings
from protocol.profile import HARDENED
from storage.users_file import read_users, ue_hosts

cluster_app = typer.Typer(help="What compose.yaml runs once before the agents.", no_args_is_help=True)


@cluster_app.command("secrets")
def secrets(
    directory: Annotated[Path, Argument(help="Where they go: a directory for each who is given any.")],
    *,
    users: Annotated[
        str,
        Option(help="Names of users, separated by commas; each has a UE host, `carol@bob` is on bob's."),
    ] = "alice,bob",
    crowd: Annotated[int, Option(min=0, help="Handsets on the UE host `load`, for load.")] = 0,
    kafka: Annotated[str, Option(help="The brokers, as the operator's `otway` reaches them.")],
    store: Annotated[str, Option(help="The store, likewise.")],
    tls: Annotated[bool, Option("--tls", envvar="TLS", help="Both speak TLS.")] = False,
    renew: Annotated[bool, Option("--renew", help="Make all certificates anew.")] = False,
) -> None:
    """Make passwords, certificates, access list, key file and subscribers. What is there stays as it is."""
    wish = SecretsWish(
        directory=directory,
        users=[name.strip() for name in users.split(",") if name.strip()],
        crowd=crowd,
        kafka=kafka,
        store=store,
        tls=tls,
        renew=renew,
    )
    make_secrets(wish, now=clock(), random=random, say=typer.echo)
    typer.echo(f"{directory} has all that is needed")


@cluster_app.command("setup")
def setup(
    directory: Annotated[Path, Argument(help="The set-up's own directory of the secrets.")],
    *,
    inside: Annotated[str, Option(help="The brokers' inner listener: host:port, separated by commas.")],
    restored: Annotated[
        bool, Option("--restored", help="The store comes from a copy: refuse tokens from before now.")
    ] = False,
) -> None:
    """Make topics, access lists and passwords on the brokers, and write the subscribers into the store."""
    if find_spec("confluent_kafka") is None:
        raise Mistake("this installation sets no cluster up: `pip install 'otway[setup]'` mends it")
    cluster_setup = import_module("console.clusters.cluster_setup")
    settings = read_settings(os.environ)
    logs.configure(settings.log, HARDENED, quiet=True)
    devices = read_users(directory / "users.toml")
    wish = cluster_setup.SetupWish(
        inside=inside,
        outside=settings.kafka_settings,
        directory=directory,
        ue_hosts=ue_hosts(devices),
        replication=settings.replication,
    )

    async def everything() -> None:
        await cluster_setup.set_up(wish, say=typer.echo)
        done = await provision_all(settings, devices, restored=restored)
        typer.echo(f"{len(devices)} devices, {done.added} records of theirs new in the store")

    asyncio.run(everything())
