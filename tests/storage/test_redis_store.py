"""The Redis store keeps the contract, and says the right thing when its server does not play along."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from storage.redis_store import RedisSettings, RedisStore
from storage.store import (
    NO_VERSION,
    SWEEP_MARGIN_S,
    Change,
    Store,
    Stored,
    StoredAlarm,
    StoredPut,
    StoreRefused,
    StoreUnavailable,
)
from tests.storage.store_contract import ALL_OCTETS, StoreContract, changes, v

Command = Callable[..., Awaitable[Any]]
on_servers = pytest.mark.servers


@asynccontextmanager
async def store_at(url: str, **settings: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=url, **settings))
    try:
        yield store
    finally:
        await store.close()


class Wire:
    """A TCP proxy between a store and its server, which loses what a test wants lost."""

    def __init__(self, url: str) -> None:
        self._server_at = urlsplit(url)
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.answers: Literal["pass", "hold", "cut"] = "pass"  # cut: the next one, with its connection
        self.sent = bytearray()  # by the store

    @property
    def url(self) -> str:
        """The server's url with the proxy's address in it."""
        login = self._server_at.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self._port}" if login else f"127.0.0.1:{self._port}"
        return self._server_at._replace(netloc=netloc).geturl()

    async def up(self) -> None:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def down(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self.cut()
            await self._listener.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(
            self._server_at.hostname, self._server_at.port
        )
        pair = {writer, there_writer}
        self._writers |= pair
        await asyncio.gather(self._requests(reader, there_writer), self._answers(there_reader, writer))
        self._writers -= pair

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while octets := await reader.read(65536):
                self.sent += octets
                writer.write(octets)
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while octets := await reader.read(65536):
                if self.answers == "cut":
                    self.answers = "pass"
                    break
                if self.answers == "pass":
                    writer.write(octets)
        writer.close()


@pytest.fixture
def redis_url(servers: Any) -> str:
    return str(servers.redis_url)


@pytest.fixture
async def command(redis_url: str, role: str) -> AsyncIterator[Command]:
    """Any command, as an operator gives it; what the test wrote goes in the end."""
    operator = Redis.from_url(redis_url)

    async def run(*words: str | bytes | int) -> Any:
        return await operator.execute_command(*words)  # type: ignore[no-untyped-call]

    try:
        yield run
        left = [name async for name in operator.scan_iter(match=f"{role}*", count=10_000)]
        if left:
            await operator.unlink(*left)
    finally:
        await operator.aclose()


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    wire = Wire(redis_url)
    await wire.up()
    yield wire
    await wire.down()


class TestRedisStore(StoreContract):
    """With the tests of the contract those of the server's side of it."""

    pytestmark = on_servers

    @pytest.fixture
    async def store(self, redis_url: str, command: Command) -> AsyncIterator[Store]:
        del command  # which cleans up
        async with store_at(redis_url) as store:
            yield store

    async def test_the_server_sweeps_after_the_margin(
        self, store: Store, command: Command, name: str
    ) -> None:
        expires = int(time.time()) + 60
        await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1", expires)))
        assert await command("EXPIRETIME", name) == expires + SWEEP_MARGIN_S
        await store.write(changes(StoredPut(name, v(1), v(2), b"2", expires + 5)))
        assert await command("EXPIRETIME", name) == expires + 5 + SWEEP_MARGIN_S
        await store.write(changes(StoredPut(name, v(2), v(3), b"3")))
        assert await command("EXPIRETIME", name) == -1

    async def test_a_swept_record_is_absent(self, store: Store, name: str) -> None:
        long_ago = int(time.time()) - SWEEP_MARGIN_S - 1
        assert await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1", long_ago))) == [True]
        assert await store.read([name]) == [Stored(NO_VERSION, None)]

    async def test_what_the_server_keeps(self, store: Store, command: Command, role: str, name: str) -> None:
        alarm = StoredAlarm(role, 3, "a", 5, v(2), b"wake")
        await store.write([Change((StoredPut(name, NO_VERSION, v(1), ALL_OCTETS),), (alarm,))])
        alarms, records = f"{role}:{{3}}:alarms", f"{role}:{{3}}:alarm-records"
        assert await command("GET", name) == v(1) + ALL_OCTETS
        assert await command("ZRANGE", alarms, 0, -1, "WITHSCORES") == [[b"a", 5.0]]
        assert await command("HGETALL", records) == {b"a": v(2) + b"wake"}
        await store.dismiss(await store.due(role, [3], 5, 1))
        assert await command("EXISTS", alarms, records) == 0

    async def test_an_alarm_without_its_record_holds_up_no_other(
        self, store: Store, command: Command, role: str
    ) -> None:
        await store.write(
            [Change((), (StoredAlarm(role, 3, "a", 1, v(1)), StoredAlarm(role, 3, "b", 2, v(2))))]
        )
        await command("HDEL", f"{role}:{{3}}:alarm-records", "a")
        assert [alarm.name for alarm in await store.due(role, [3], 5, 10)] == ["b"]

    async def test_a_server_that_lost_its_scripts_is_given_them_again(
        self, store: Store, command: Command, role: str, name: str
    ) -> None:
        alarm = StoredAlarm(role, 3, "a", 5, v(9))
        await command("SCRIPT FLUSH")
        assert await store.write([Change((StoredPut(name, NO_VERSION, v(1), b"1"),), (alarm,))]) == [True]
        await command("SCRIPT FLUSH")
        due = await store.due(role, [3], 5, 1)
        assert len(due) == 1
        await command("SCRIPT FLUSH")
        await store.dismiss(due)
        assert await store.due(role, [3], 5, 1) == []
        await command("SCRIPT FLUSH")
        assert await store.write(changes(StoredPut(name, v(1), v(2), b"2"))) == [True]

    async def test_a_name_that_is_no_record_is_refused(
        self, store: Store, command: Command, name: str, other: str
    ) -> None:
        await command("RPUSH", name, "of somebody else")
        put, foreign = StoredPut(other, NO_VERSION, v(1), b""), StoredPut(name, NO_VERSION, v(2), b"")
        with pytest.raises(StoreRefused, match="WRONGTYPE"):
            await store.write([Change((put, foreign))])
        assert await store.read([other]) == [Stored(NO_VERSION, None)]

    async def test_the_server_knows_the_client_by_its_name(self, redis_url: str, command: Command) -> None:
        async with store_at(redis_url, client_name="kms-7.of.a.test") as store:
            await store.read(["t:{0}:x:"])
            clients = await command("CLIENT LIST")
        assert "kms-7.of.a.test" in [client["name"] for client in clients]

    async def test_many_calls_at_once(self, store: Store, role: str) -> None:
        names = [f"{role}:{{0}}:thing:{i}" for i in range(10)]
        put = [changes(StoredPut(name, NO_VERSION, v(i + 1), b"")) for i, name in enumerate(names)]
        assert await asyncio.gather(*(store.write(one) for one in put)) == [[True]] * 10
        found = await asyncio.gather(*(store.read([name]) for name in names))
        assert found == [[Stored(v(i + 1), b"")] for i in range(10)]

    async def test_writers_that_race_lose_no_update(self, redis_url: str, store: Store, name: str) -> None:
        version = iter(range(1, 10**6))

        async def count(own: Store, times: int) -> None:
            while times:
                (found,) = await own.read([name])
                value = b"%d" % (int(found.value or b"0") + 1)
                (written,) = await own.write(changes(StoredPut(name, found.version, v(next(version)), value)))
                times -= written

        async with store_at(redis_url) as one, store_at(redis_url) as two:
            await asyncio.gather(count(one, 50), count(two, 50), count(store, 50))
        assert (await store.read([name]))[0].value == b"150"


class TestWire:
    """What a broken connection does."""

    pytestmark = on_servers

    @pytest.fixture
    async def store(self, wire: Wire, command: Command, name: str) -> AsyncIterator[RedisStore]:
        """Connected, and its scripts are loaded."""
        del command  # which cleans up
        async with store_at(wire.url) as store:
            await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1")))
            wire.sent.clear()
            yield store

    async def test_one_round_trip_for_each_call(self, store: RedisStore, wire: Wire, role: str) -> None:
        await store.due(role, [0], 0, 1)
        await store.dismiss(await store.due(role, [0], 0, 1))
        wire.sent.clear()
        puts = [StoredPut(f"{role}:{{{i % 12}}}:x:{i}", NO_VERSION, v(1), b"") for i in range(600)]
        alarms = [StoredAlarm(role, i, "a", 1, v(1)) for i in range(12)]
        await store.write([*changes(*puts), Change((), alarms)])
        await store.read([put.name for put in puts])
        await store.due(role, range(12), 5, 100)
        assert wire.sent.count(b"\r\nEVALSHA\r\n") == 2
        assert wire.sent.count(b"\r\nMGET\r\n") == 1
        assert (
            wire.sent.count(b"*") == 3
        )  # no other command: every one begins with it, and nothing else has it

    async def test_a_write_whose_answer_was_lost_is_not_sent_again(
        self, store: RedisStore, wire: Wire, name: str
    ) -> None:
        wire.answers = "cut"
        with pytest.raises(StoreUnavailable):
            await store.write(changes(StoredPut(name, v(1), v(2), b"2")))
        assert wire.sent.count(b"EVALSHA") == 1
        assert await store.read([name]) == [Stored(v(2), b"2")]

    async def test_a_read_whose_answer_was_lost_is_asked_again(
        self, store: RedisStore, wire: Wire, name: str
    ) -> None:
        wire.answers = "cut"
        assert await store.read([name]) == [Stored(v(1), b"1")]
        assert wire.sent.count(b"MGET") == 2

    @pytest.mark.parametrize("call", ["read", "write", "due", "dismiss"])
    async def test_a_server_that_is_away_and_comes_back(
        self, store: RedisStore, wire: Wire, role: str, name: str, call: str
    ) -> None:
        await store.write([Change((), (StoredAlarm(role, 3, "a", 5, v(9)),))])
        alarms = await store.due(role, [3], 5, 1)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "read": lambda: store.read([name]),
            "write": lambda: store.write(changes(StoredPut(name, v(1), v(2), b"2"))),
            "due": lambda: store.due(role, [3], 5, 1),
            "dismiss": lambda: store.dismiss(alarms),
        }
        await wire.down()
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"^redis://"):
                await calls[call]()
        await wire.up()
        expected = {"read": [Stored(v(1), b"1")], "write": [True], "due": alarms, "dismiss": None}
        assert await calls[call]() == expected[call]

    async def test_a_connection_that_was_cut_while_idle_costs_nothing(
        self, store: RedisStore, wire: Wire, name: str
    ) -> None:
        wire.cut()
        async with store_at(wire.url) as another:  # its round trip comes after the end of the cut connection
            await another.read([name])
        assert await store.write(changes(StoredPut(name, v(1), v(2), b"2"))) == [True]

    async def test_no_answer_within_the_deadline(self, wire: Wire, command: Command, name: str) -> None:
        del command
        async with store_at(wire.url, deadline_s=0.15) as store, asyncio.timeout(5):
            await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1")))
            wire.answers = "hold"
            with pytest.raises(StoreUnavailable, match=r"no answer within 0\.15 s"):
                await store.write(changes(StoredPut(name, v(1), v(2), b"2")))
            with pytest.raises(StoreUnavailable, match="no answer"):  # while connecting
                await store.read([name])
            wire.answers = "pass"
            assert await store.read([name, name + "-"]) == [Stored(v(2), b"2"), Stored(NO_VERSION, None)]


class TestRights:
    """What the server's user may do."""

    pytestmark = on_servers
    DOCUMENTED = (  # in storage/redis_store.py
        "+mget +evalsha +script|load +client|setname "
        "+getrange +set +del +zadd +zrem +hset +hdel +hget +zrangebyscore"
    )

    @pytest.fixture
    async def login(self, redis_url: str, command: Command, role: str) -> AsyncIterator[str]:
        """The url for a user who has the documented rights to the keys of the role."""
        await command("ACL SETUSER", role, "on", ">a password", f"~{role}:*", *self.DOCUMENTED.split())
        at = urlsplit(redis_url)
        yield at._replace(netloc=f"{role}:a%20password@{at.hostname}:{at.port}").geturl()
        await command("ACL DELUSER", role)

    async def test_the_documented_rights_are_enough(self, login: str, command: Command, role: str) -> None:
        name = f"{role}:{{3}}:x:"
        await command("SCRIPT FLUSH")
        async with store_at(login) as store:
            alarms = (StoredAlarm(role, 3, "a", 5, v(9)), StoredAlarm(role, 3, "b", None))
            created = StoredPut(name, NO_VERSION, v(1), b"1", int(time.time()))
            assert await store.write([Change((created,), alarms)]) == [True]
            assert await store.read([name]) == [Stored(v(1), b"1")]
            assert await store.write(changes(StoredPut(name, v(1), v(2), None))) == [True]
            due = await store.due(role, range(12), 5, 10)
            assert [alarm.name for alarm in due] == ["a"]
            await store.dismiss(due)
            assert await store.due(role, range(12), 5, 10) == []

    async def test_keys_of_another_role_are_refused_whole(self, login: str, role: str) -> None:
        own, foreign = f"{role}:{{3}}:x:", f"{role}x:{{3}}:x:"
        put = StoredPut(own, NO_VERSION, v(1), b"1")
        async with store_at(login) as store:
            for change in (
                Change((StoredPut(foreign, NO_VERSION, v(1), b""),)),
                Change((), (StoredAlarm(role + "x", 3, "a", 5, v(1)),)),
            ):
                with pytest.raises(StoreRefused):
                    await store.write([Change((put,)), change])
            with pytest.raises(StoreRefused):
                await store.read([own, foreign])
            with pytest.raises(StoreRefused):
                await store.due(role + "x", [3], 5, 1)
            assert await store.read([own]) == [Stored(NO_VERSION, None)]

    async def test_a_command_missing_inside_a_script_is_refused(
        self, login: str, command: Command, role: str
    ) -> None:
        await command("ACL SETUSER", role, "-getrange")
        async with store_at(login) as store:
            with pytest.raises(StoreRefused, match="script"):
                await store.write(changes(StoredPut(f"{role}:{{3}}:x:", NO_VERSION, v(1), b"1")))

    @pytest.mark.parametrize("user", ["", "wrong"], ids=["wrong password", "unknown user"])
    async def test_a_wrong_login_is_refused_at_once(
        self, wire: Wire, login: str, role: str, user: str
    ) -> None:
        del login  # which makes the user
        address = wire.url.rpartition("@")[2].removeprefix("redis://")
        async with store_at(f"redis://{user or role}:hunter2@{address}") as store:
            for call in (store.read([f"{role}:x"]), store.write([Change()]), store.due(role, [0], 1, 1)):
                with pytest.raises(StoreRefused, match="login refused") as refused:
                    await call
                assert "hunter2" not in str(refused.value)
        assert wire.sent.count(b"hunter2") == 3  # once a call

    async def test_a_user_who_is_removed_is_refused_from_then_on(
        self, login: str, command: Command, role: str
    ) -> None:
        async with store_at(login) as store:
            await store.read([f"{role}:x"])
            await command("ACL DELUSER", role)
            with pytest.raises((StoreRefused, StoreUnavailable)):  # the server cuts the connection
                await store.write([Change()])
            with pytest.raises(StoreRefused):
                await store.write([Change()])


@asynccontextmanager
async def server_that_answers(line: bytes) -> AsyncIterator[str]:
    """The url of a server that gives every command but CLIENT this answer."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(65536):
            writer.write(b"+OK\r\n" if b"CLIENT" in request else line + b"\r\n")
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1") as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


COMES_BACK = (
    b"-LOADING Redis is loading the dataset in memory",
    b"-READONLY You can't write against a read only replica.",
    b"-OOM command not allowed when used memory > 'maxmemory'.",
    b"-MISCONF Errors writing to the AOF file: No space left on device",
    b"-BUSY Redis is busy running a script.",
    b"-NOREPLICAS Not enough good replicas to write.",
    b"-MASTERDOWN Link with MASTER is down",
    b"-TRYAGAIN Multiple keys request during rehashing of slot",
    b"-CLUSTERDOWN Hash slot not served",
    b"-ERR max number of clients reached",
    b"HTTP/1.1 400 Bad Request",
)
STAYS = (
    b"-NOAUTH Authentication required.",
    b"-WRONGPASS invalid username-password pair or user is disabled.",
    b"-NOPERM this user has no permissions to run the 'evalsha' command",
    b"-ERR ACL failure in script: User kms has no permissions to run the 'set' command",
    b"-MOVED 3999 127.0.0.1:6381",
    b"-CROSSSLOT Keys in request don't hash to the same slot",
    b"-ERR unknown command 'EVALSHA'",
)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(answer, StoreUnavailable) for answer in COMES_BACK] + [(answer, StoreRefused) for answer in STAYS],
)
async def test_what_an_answer_means(answer: bytes, error: type[Exception]) -> None:
    async with server_that_answers(answer) as url, store_at(url) as store:
        with pytest.raises(error):
            await store.write([Change()])
        with pytest.raises(error):
            await store.read(["t:{0}:x:"])


async def test_nobody_listens() -> None:
    async with server_that_answers(b"") as url:
        pass
    async with store_at(url) as store:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            await store.read(["t:{0}:x:"])


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://kms:hunter2@store:6379/1", "redis://kms@store:6379/1"),
        ("rediss://:hunter2@store?ssl_ca_certs=/ca.pem&password=hunter2", "rediss://store"),
        ("redis://store", "redis://store"),
        ("redis://kms:hunter2%40hunter2%2F@store:6379", "redis://kms@store:6379"),
        ("redis://:hunter2@hunter2@store:6379", "redis://store:6379"),
    ],
)
async def test_a_password_does_not_print(url: str, place: str) -> None:
    settings = RedisSettings(url=url)
    assert settings.place == place
    assert repr(settings).count(place) == 1
    assert "hunter2" not in repr(settings)
    async with store_at(url) as store:
        assert "hunter2" not in repr(vars(store))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:x@hunter2/x@store:6379",
        "redis://:x#hunter2@store:6379",
        "redis://:x?hunter2@store:6379",
        "redis://:hunter2/x@store:6379",
        "redis://kms:hunter2@:6379",
        "hunter2",
        "hunter2://x@:hunter2",
        "",
    ],
)
def test_a_url_that_does_not_read_does_not_print(url: str) -> None:
    with pytest.raises(ValueError, match="escaped") as error:
        RedisSettings(url=url)
    assert "hunter2" not in str(error.value)
    assert error.value.__context__ is None
