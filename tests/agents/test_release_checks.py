"""RELEASE at the KMS, each check broken alone: it refuses, says why to the audit, and changes no record."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.decision import Decision
from agents.kms import KmsSettings
from protocol.checks import Check, RefusalCode
from protocol.encoding import enc_body
from protocol.evidence import Holder, LegGrant, Notice, TranscoderToken
from protocol.limits import LIFE_S, SKEW_S, TOKEN_AGE_S
from protocol.literal import Literal
from protocol.names import NoticeKind, Owner, Permit, Role, Run, Suite
from protocol.profile import HARDENED
from protocol.sealing import down_key, up
from protocol.transcoding import leg_key, open_leg_grant, open_notice
from storage.kms_records import Agreement, Site
from tests.agents.between import TRANSCODE, TRANSCODER
from tests.agents.scene import ALICE, BOB, CALL, EVE, NOW, Town, deposited, expect, granted
from topics.catalogue import TRANSCODER as INBOX
from topics.messages import AuditEvent, KeyRequest, KeyResponse, Refusal, Release, ReleaseResponse, clear

OTHER = "sip:other-transcoder@ims.example"


class Exchange:
    """A town with a transcoder, in which alice has called bob, and settled for him unless told otherwise."""

    def __init__(
        self,
        *,
        permits: tuple[tuple[Permit, ...], tuple[Permit, ...]] = (TRANSCODE, TRANSCODE),
        settle: bool = True,
        kms: KmsSettings | None = None,
        caller: str = ALICE,
        callee: str = BOB,
    ) -> None:
        self.town = town = Town(kms)
        town.subscribe("psk:transcoder", TRANSCODER, owner=Owner.TRANSCODER)
        town.subscribe("psk:other-transcoder", OTHER, owner=Owner.TRANSCODER)
        if caller != ALICE:
            town.change("psk:alice", identities=(caller,))
        if callee != BOB:
            town.change("psk:bob", identities=(callee,))
        self.run = run = town.run(caller=caller, callee=callee)
        body_a, body_b = (town.body(run, permits=permitted) for permitted in permits)
        self.nonces = body_a.nonce, body_b.nonce
        self.request = town.request(run, body_a=body_a, body_b=body_b)
        self.response = granted(town.give(self.request))
        if settle:
            town.give(town.settled(self.request, self.response.fork))

    @property
    def fork(self) -> bytes:
        return self.response.fork

    def body(self, run: Run | None = None, **changes: Any) -> TranscoderToken:
        run = run or self.run
        fields: dict[str, Any] = {
            "call": run.call,
            "n": run.n,
            "fork": self.fork,
            "caller": run.caller,
            "callee": run.callee,
            "transcoder": TRANSCODER,
            "nonce": self.town.random(16),
            "time": NOW,
        }
        return TranscoderToken(**{**fields, **changes})

    def release(
        self,
        run: Run | None = None,
        *,
        body: TranscoderToken | None = None,
        transcoder: str = TRANSCODER,
        key_id: str = "psk:transcoder",
        **changes: Any,
    ) -> Release:
        """What the transcoder would ask; each part may be given. changes: of the clear values."""
        run = run or self.run
        body = body or self.body(run, transcoder=transcoder)
        sealing = run if "suite" not in changes else msgspec.structs.replace(run, suite=changes["suite"])
        fork, holder = changes.get("fork", body.fork), self.town.holder(Role.TRANSCODER, key_id)
        fields: dict[str, Any] = {
            "fork": fork,
            "transcoder": transcoder,
            "transcoder_key": key_id,
            "suite": run.suite,
            "token_t": _seal(holder, sealing, fork, transcoder, body, self.town),
            **clear(run),
        }
        return Release(**{**fields, **changes})

    def give(self, release: Release, now: int = NOW) -> Decision:
        return self.town.give(release, now)

    def grant(self, release: Release, response: ReleaseResponse, body: TranscoderToken) -> LegGrant:
        """grant_t, opened as the transcoder would."""
        return open_leg_grant(
            self.town.holder(Role.TRANSCODER, release.transcoder_key),
            msgspec.structs.replace(self.run, suite=release.suite),
            self.fork,
            release.transcoder,
            response.grant_t,
            token_t=release.token_t,
            nonce=body.nonce,
            now=NOW,
        )

    def notices(self, response: ReleaseResponse, transcoder: str = TRANSCODER) -> tuple[Notice, Notice]:
        """notice_a and notice_b, opened as both ends would that have taken none before."""
        opened = []
        for role, key_id, identity, nonce, sealed in (
            (Role.CALLER, "psk:alice", self.run.caller, self.nonces[0], response.notice_a),
            (Role.CALLEE, "psk:bob", self.run.callee, self.nonces[1], response.notice_b),
        ):
            opened.append(
                open_notice(
                    self.town.holder(role, key_id),
                    self.run,
                    identity,
                    sealed,
                    fork=self.fork,
                    transcoder=transcoder,
                    nonce=nonce,
                    serial_taken=0,
                )
            )
        return opened[0], opened[1]

    @property
    def agreement(self) -> Agreement:
        agreement = self.town.agreement(self.run.caller)
        assert agreement is not None
        return agreement

    def change_agreement(self, **changes: Any) -> None:
        key = Agreement.key_for(self.run.caller, CALL)
        self.town.put(key, msgspec.structs.replace(self.agreement, **changes))


def _seal(holder: Holder, run: Run, fork: bytes, transcoder: str, body: TranscoderToken, town: Town) -> bytes:
    """token_t whose context is that of the clear values, whatever its body says."""
    context = (run.call, run.n, fork, run.caller, run.callee, transcoder, holder.key_id)
    return up(holder.key, run.suite, Role.TRANSCODER).seal("token-t", context, enc_body(body), town.random)


def released(decision: Decision) -> ReleaseResponse:
    """The RELEASE-RESPONSE, for whoever has the call, with its audit record before it."""
    [send] = decision.sends
    assert send.topic == INBOX
    assert isinstance(send.message, ReleaseResponse), send.message
    [audit] = decision.audit
    assert audit.event is AuditEvent.RELEASED
    return send.message


def refuses(
    exchange: Exchange,
    check: Check,
    code: RefusalCode,
    *,
    sealed: bool = True,
    now: int = NOW,
    release: Release | None = None,
) -> None:
    """This one is refused, by this check."""
    decision = exchange.give(release or exchange.release(), now)
    expect(decision, check, code, sealed=sealed)
    [send] = decision.sends
    assert send.topic == INBOX
    assert isinstance(send.message, Refusal)
    assert send.message.to is None


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.mark.parametrize("suite", Suite)
def test_a_good_release_gets_two_leg_keys_and_no_k(exchange: Exchange, suite: Suite) -> None:
    body = exchange.body()
    release = exchange.release(body=body, suite=suite)
    response = released(exchange.give(release))
    grant = exchange.grant(release, response, body)
    key = exchange.agreement.runs[0].forks[0].key
    assert key is not None
    assert grant.leg_a == leg_key(key, exchange.run, exchange.fork, TRANSCODER, ALICE)
    assert grant.leg_b == leg_key(key, exchange.run, exchange.fork, TRANSCODER, BOB)
    assert len({key.reveal(), grant.leg_a.reveal(), grant.leg_b.reveal()}) == 3
    assert (grant.now, grant.not_before, grant.not_after) == (NOW, NOW - SKEW_S, NOW + LIFE_S)


def test_both_ends_get_a_notice_of_their_own(exchange: Exchange) -> None:
    response = released(exchange.give(exchange.release()))
    for notice, nonce in zip(exchange.notices(response), exchange.nonces, strict=True):
        assert (notice.kind, notice.serial, notice.nonce) == (NoticeKind.LEG, 1, nonce)
        assert (notice.transcoder, notice.fork) == (TRANSCODER, exchange.fork)


def test_each_release_is_one_audit_record(exchange: Exchange) -> None:
    first = exchange.release()
    [one], [again], [other] = (exchange.give(each).audit for each in (first, first, exchange.release()))
    assert one.id == again.id != other.id
    assert (one.transcoder, one.key_id, one.fork) == (TRANSCODER, "psk:transcoder", exchange.fork)
    assert (one.caller_key, one.callee_key) == ("psk:alice", "psk:bob")


def test_or_01_a_suite_that_is_not_allowed() -> None:
    exchange = Exchange(kms=KmsSettings(suites=frozenset({Suite.AES_256_GCM})))
    release = exchange.release(suite=Suite.CHACHA20_POLY1305)
    refuses(exchange, Check.OR_01, RefusalCode.UNSUPPORTED, sealed=False, release=release)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"revoked": True}, RefusalCode.DENIED),
        ({"not_before": NOW + 1}, RefusalCode.EXPIRED_KEY),
        ({"not_after": NOW - 1}, RefusalCode.EXPIRED_KEY),
    ],
    ids=["revoked", "early", "late"],
)
def test_or_02_the_transcoders_key_id(exchange: Exchange, change: dict[str, Any], code: RefusalCode) -> None:
    exchange.town.change("psk:transcoder", **change)
    refuses(exchange, Check.OR_02, code, sealed=False)


def test_or_02_an_unknown_key_id(exchange: Exchange) -> None:
    release = msgspec.structs.replace(exchange.release(), transcoder_key="psk:nobody")
    refuses(exchange, Check.OR_02, RefusalCode.DENIED, sealed=False, release=release)


@pytest.mark.parametrize("owner", [Owner.UE, Owner.MAILBOX, Owner.FOCUS])
def test_or_03_a_key_that_is_no_transcoders(exchange: Exchange, owner: Owner) -> None:
    exchange.town.change("psk:transcoder", owner=owner)
    refuses(exchange, Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=False)


def test_or_03_a_transcoder_under_another_name(exchange: Exchange) -> None:
    release = exchange.release(transcoder=OTHER)
    refuses(exchange, Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=False, release=release)


def test_or_05_token_t_of_another_key(exchange: Exchange) -> None:
    release = exchange.release(key_id="psk:other-transcoder", transcoder=TRANSCODER)
    release = msgspec.structs.replace(release, transcoder_key="psk:transcoder")
    refuses(exchange, Check.OR_05, RefusalCode.DENIED, sealed=False, release=release)


@pytest.mark.parametrize(
    "clear_value",
    [
        {"call": bytes(16)},
        {"run": 1},
        {"caller": EVE},
        {"callee": EVE},
        {"fork": bytes(8)},
        {"suite": Suite.CHACHA20_POLY1305},
    ],
    ids=lambda each: next(iter(each)),
)
def test_or_05_each_clear_value_is_bound_to_token_t(exchange: Exchange, clear_value: dict[str, Any]) -> None:
    release = msgspec.structs.replace(exchange.release(), **clear_value)
    refuses(exchange, Check.OR_05, RefusalCode.DENIED, sealed=False, release=release)


@pytest.mark.parametrize(
    "inside",
    [
        {"call": bytes(16)},
        {"n": 1},
        {"caller": EVE},
        {"callee": EVE},
        {"fork": bytes(8)},
        {"transcoder": OTHER},
    ],
    ids=lambda each: next(iter(each)),
)
def test_or_07_each_value_inside_token_t(exchange: Exchange, inside: dict[str, Any]) -> None:
    """The seal's context is that of the clear values; what was sealed says something else."""
    release = exchange.release(body=exchange.body(**inside), fork=exchange.fork)
    refuses(exchange, Check.OR_07, RefusalCode.DENIED, release=release)


def test_or_08_a_transcoder_between_itself_and_another(exchange: Exchange) -> None:
    run = exchange.town.run(caller=TRANSCODER)
    refuses(exchange, Check.OR_08, RefusalCode.DENIED, release=exchange.release(run))


@pytest.mark.parametrize("time", [NOW - TOKEN_AGE_S - 1, NOW + SKEW_S + 1], ids=["old", "from the future"])
def test_or_09_the_time_of_token_t(exchange: Exchange, time: int) -> None:
    release = exchange.release(body=exchange.body(time=time))
    refuses(exchange, Check.OR_09, RefusalCode.STALE, release=release)


def test_or_10_the_same_transcoder_gets_the_same_leg_keys(exchange: Exchange) -> None:
    grants = []
    for serial in (1, 2, 3):
        body = exchange.body()
        release = exchange.release(body=body)
        response = released(exchange.give(release))
        grants.append(exchange.grant(release, response, body))
        assert [notice.serial for notice in exchange.notices(response)] == [serial, serial]
    assert len({(grant.leg_a.reveal(), grant.leg_b.reveal()) for grant in grants}) == 1


def test_a_release_is_under_the_key_id_that_asked_last(exchange: Exchange) -> None:
    released(exchange.give(exchange.release()))
    exchange.town.subscribe("psk:transcoder-new", TRANSCODER, owner=Owner.TRANSCODER)
    released(exchange.give(exchange.release(key_id="psk:transcoder-new"), NOW + 1))
    record = exchange.agreement.runs[0].forks[0].released
    assert record is not None
    assert (record.transcoder_key, record.granted) == ("psk:transcoder-new", NOW + 1)


def test_or_10_another_transcoder_is_too_late(exchange: Exchange) -> None:
    released(exchange.give(exchange.release()))
    other = exchange.release(transcoder=OTHER, key_id="psk:other-transcoder")
    refuses(exchange, Check.OR_10, RefusalCode.REPLAY, release=other)


def test_or_10_one_whose_release_was_revoked_gets_none_again(exchange: Exchange) -> None:
    released(exchange.give(exchange.release()))
    exchange.change_agreement(barred=(TRANSCODER,))
    refuses(exchange, Check.OR_10, RefusalCode.NOT_PERMITTED)
    exchange = Exchange()
    exchange.change_agreement(barred=(OTHER,))
    released(exchange.give(exchange.release()))


def test_or_10_a_token_from_before_the_store_was_new(exchange: Exchange) -> None:
    site = exchange.town.records[Site.key().name]
    assert isinstance(site, Site)
    exchange.town.put(Site.key(), msgspec.structs.replace(site, founded=NOW + 1))
    refuses(exchange, Check.OR_10, RefusalCode.STALE)


def test_or_11_so_many_releases_a_second() -> None:
    exchange = Exchange(kms=KmsSettings(mailbox_requests_per_s=2))
    for _ in range(2):
        released(exchange.give(exchange.release()))
    refuses(exchange, Check.OR_11, RefusalCode.TOO_MANY)
    released(exchange.give(exchange.release(), NOW + 1))


def test_or_11_what_does_not_open_counts_against_the_transcoder() -> None:
    exchange = Exchange(kms=KmsSettings(host_requests_per_s=1))
    junk = msgspec.structs.replace(exchange.release(), token_t=bytes(60))
    refuses(exchange, Check.OR_05, RefusalCode.DENIED, sealed=False, release=junk)
    refuses(exchange, Check.OR_11, RefusalCode.TOO_MANY, sealed=False, release=junk)
    released(exchange.give(exchange.release()))  # what opens is not delayed by junk in its name


@pytest.mark.parametrize("side", [0, 1], ids=["caller", "callee"])
def test_or_13_each_side_must_permit_it(side: int) -> None:
    permits: list[tuple[Permit, ...]] = [TRANSCODE, TRANSCODE]
    permits[side] = (Permit.DEFERRED,)
    exchange = Exchange(permits=(permits[0], permits[1]))
    refuses(exchange, Check.OR_13, RefusalCode.NOT_PERMITTED)


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_or_14_it_may_not_serve_users_of_another_host(side: str) -> None:
    user = "sip:someone@elsewhere.example"
    exchange = Exchange(caller=user) if side == "caller" else Exchange(callee=user)
    released(exchange.give(exchange.release()))
    exchange.town.change("psk:transcoder", serves=("ims.example",))
    refuses(exchange, Check.OR_14, RefusalCode.NOT_PERMITTED)
    exchange.town.change("psk:transcoder", serves=("elsewhere.example", "ims.example"))
    released(exchange.give(exchange.release()))


def test_or_14_the_ten_steps_have_no_transcoder() -> None:
    exchange = Exchange()
    exchange.town.agent._profile = Literal()  # type: ignore[attr-defined]
    refuses(exchange, Check.OR_14, RefusalCode.NOT_PERMITTED)


def test_or_15_a_release_before_settled_is_to_come_again() -> None:
    exchange = Exchange(settle=False)
    release = exchange.release()
    refuses(exchange, Check.OR_15, RefusalCode.BUSY, release=release)
    exchange.town.give(exchange.town.settled(exchange.request, exchange.fork))
    released(exchange.give(release))


def test_or_15_a_device_that_has_lost() -> None:
    exchange = Exchange(settle=False)
    town = exchange.town
    run = exchange.run
    body = town.body(run, permits=TRANSCODE)
    other = town.request(run, token_a=exchange.request.token_a, body_b=body, callee_key="psk:bob2")
    winner: KeyResponse = granted(town.give(other))
    town.give(town.settled(exchange.request, winner.fork))
    refuses(exchange, Check.OR_15, RefusalCode.NOT_FOUND)


def test_or_15_another_call_run_callee_or_fork(exchange: Exchange) -> None:
    for run in (
        exchange.town.run(call=bytes(16)),
        exchange.town.run(n=1),
        exchange.town.run(caller=EVE),
        exchange.town.run(callee=EVE),
    ):
        refuses(exchange, Check.OR_15, RefusalCode.NOT_FOUND, release=exchange.release(run))
    other = exchange.release(body=exchange.body(fork=bytes(8)))
    refuses(exchange, Check.OR_15, RefusalCode.NOT_FOUND, release=other)


def test_or_15_a_mailboxs_run_has_no_legs() -> None:
    exchange = Exchange(settle=False)
    run, town = exchange.run, Town()
    town.subscribe("psk:transcoder", TRANSCODER, owner=Owner.TRANSCODER)
    exchange.town = town
    deposit = town.deposit(run, body_a=town.body(run, permits=TRANSCODE))
    deposited(town.give(deposit))
    town.give(town.settled(deposit, None))
    refuses(exchange, Check.OR_15, RefusalCode.NOT_FOUND)
    refuses(
        exchange,
        Check.OR_15,
        RefusalCode.NOT_FOUND,
        release=exchange.release(body=exchange.body(fork=bytes(8))),
    )


def test_or_15_a_key_that_is_over(exchange: Exchange) -> None:
    late = NOW + LIFE_S + 1
    release = exchange.release(body=exchange.body(time=late))
    refuses(exchange, Check.OR_15, RefusalCode.EXPIRED, now=late, release=release)


def test_what_a_notice_needs_of_each_end_is_kept_and_opens_nothing_else(exchange: Exchange) -> None:
    """The KMS's record of the run has down(K_x, role), not K_x: whatever becomes of a KID."""
    agreed = exchange.agreement.runs[0]
    alice, bob = exchange.town.subscriber("psk:alice").key, exchange.town.subscriber("psk:bob").key
    suite = exchange.run.suite
    assert agreed.notify_a == down_key(alice, suite, Role.CALLER)
    assert agreed.forks[0].notify_b == down_key(bob, suite, Role.CALLEE)
    exchange.town.change("psk:bob", key=exchange.town.key())
    response = released(exchange.give(exchange.release()))
    exchange.town.change("psk:bob", key=bob)
    assert exchange.notices(response)[1].kind is NoticeKind.LEG


def test_the_request_that_made_the_key_still_gets_it_once_it_was_released(exchange: Exchange) -> None:
    released(exchange.give(exchange.release()))
    request: KeyRequest = exchange.request
    first = exchange.town.grants(request, exchange.response)[0]
    again = exchange.town.grants(request, granted(exchange.town.give(request)))[0]
    assert first.key == again.key
    assert exchange.agreement.runs[0].forks[0].released is not None


def test_a_refusal_is_sealed_for_this_token(exchange: Exchange) -> None:
    exchange.town.change("psk:transcoder", serves=("elsewhere.example",))
    body = exchange.body()
    release = exchange.release(body=body)
    [refusal] = [send.message for send in exchange.give(release).sends]
    assert isinstance(refusal, Refusal)
    assert refusal.sealed is not None
    holder = exchange.town.holder(Role.TRANSCODER, "psk:transcoder")
    code = HARDENED.open_refusal(
        holder, exchange.run, refusal.sealed, token=release.token_t, nonce=body.nonce
    )
    assert code is RefusalCode.NOT_PERMITTED
