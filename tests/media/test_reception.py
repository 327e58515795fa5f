"""Loss and jitter (RFC 3550, A.3, A.8)."""

from __future__ import annotations

import pytest

from media.reception import Reception


def test_loss_is_what_never_came() -> None:
    reception = Reception(ssrc=5, clock_hz=8000)
    assert (reception.expected, reception.lost) == (0, 0)
    for sequence in (101, 100, 102, 105, 104):  # 103 is lost, two are out of order
        reception.take(sequence, sequence * 160, sequence * 0.02)
    assert (reception.received, reception.expected, reception.lost) == (5, 6, 1)


def test_fraction_lost_is_that_since_the_last_report() -> None:
    reception = Reception(ssrc=5, clock_hz=8000)
    assert reception.report(0.0) is None
    for sequence in (0, 1, 2, 3):
        reception.take(sequence, 0, 0.0)
    first = reception.report(1.0)
    for sequence in (4, 7):  # 5 and 6 are lost
        reception.take(sequence, 0, 0.0)
    second = reception.report(2.0)
    assert first is not None
    assert second is not None
    assert (first.fraction_lost, first.lost, first.highest) == (0, 0, 3)
    assert (second.fraction_lost, second.lost, second.highest) == (128, 2, 7)
    assert reception.report(3.0) is None


def test_the_report_echoes_the_sender_report() -> None:
    reception = Reception(ssrc=5, clock_hz=8000)
    reception.take(0, 0, 0.0)
    reception.take_report(0xABCD, 10.0)
    block = reception.report(10.5)
    assert block is not None
    assert (block.ssrc, block.lsr, block.dlsr) == (5, 0xABCD, 32_768)


def test_a_steady_stream_has_no_jitter() -> None:
    reception = Reception(ssrc=5, clock_hz=8000)
    start = 0xFFFF_FF00  # the timestamp wraps
    for number in range(100):
        reception.take(number, (start + 160 * number) & 0xFFFF_FFFF, 50 + 0.02 * number)
    assert reception.jitter == pytest.approx(0, abs=1e-6)


def test_jitter_is_the_smoothed_difference_of_transit() -> None:
    reception = Reception(ssrc=5, clock_hz=8000)
    reception.take(0, 0, 1.000)
    reception.take(1, 160, 1.030)  # 10 ms late: 80 units
    assert reception.jitter == pytest.approx(80 / 16)
    reception.take(2, 320, 1.040)  # in time again: 80 units the other way
    assert reception.jitter == pytest.approx(5 + (80 - 5) / 16)
    assert reception.jitter_ms == pytest.approx(reception.jitter / 8)


def test_a_packet_out_of_order_goes_back_in_time() -> None:
    reception = Reception(ssrc=5, clock_hz=8000)
    reception.take(1, 160, 1.00)
    reception.take(0, 0, 1.01)  # sent 20 ms before the first, came 10 ms after it
    assert reception.jitter == pytest.approx(240 / 16)
