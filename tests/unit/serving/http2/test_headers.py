from __future__ import annotations

import logging
import random

import hpack
import pytest

from yunmo.serving.http2.frames import Http2Error, Reason, header_block
from yunmo.serving.http2.headers import MAX_HEADERS, HeaderReader, RequestHead

START = [(":method", "POST"), (":scheme", "http"), (":path", "/x")]


def read(reader: HeaderReader, block: bytes) -> RequestHead:
    head = reader.read(block)
    assert head is not None
    return head


def test_a_block_that_is_known_says_what_it_says_now() -> None:
    """The same bytes mean something else when the table has changed between."""
    encoder, reader, rng = hpack.Encoder(), HeaderReader(), random.Random(1)  # noqa: S311 (no secrets)
    names = [f"x-{index}" for index in range(6)]
    seen: dict[bytes, set[str]] = {}
    for _ in range(3000):
        name, value = rng.choice(names), str(rng.randrange(40))
        block = encoder.encode([*START, (name, value)])
        assert read(reader, block).values(name) == [value]
        seen.setdefault(block, set()).add(name + value)
    assert any(len(meanings) > 1 for meanings in seen.values()), "no block came twice with another meaning"


def test_what_was_decoded_once_is_not_decoded_again() -> None:
    reader = HeaderReader()
    block = header_block([*START, ("authorization", "Bearer x")])
    assert read(reader, block) is read(reader, block)
    assert read(reader, header_block(START)).value("authorization") is None


def test_a_change_of_the_tables_size_is_a_change() -> None:
    encoder, reader = hpack.Encoder(), HeaderReader()
    first = encoder.encode([*START, ("a", "b")])
    again = encoder.encode([*START, ("a", "b")])
    read(reader, first)
    assert read(reader, again).value("a") == "b"
    with pytest.raises(Http2Error) as caught:
        reader.read(b"\x20" + again)  # the table is emptied, so nothing has its index any more
    assert caught.value.reason == Reason.COMPRESSION_ERROR


def test_values_keep_their_order_and_bytes() -> None:
    head = read(HeaderReader(), header_block([*START, ("a", "1"), ("b", "2"), ("a", "3")]))
    assert head.values("a") == ["1", "3"]
    assert head.value("a") == "1"
    assert head.value("c") is None
    raw = header_block(START) + b"\x00\x01a\x02\xff\xfe"
    assert read(HeaderReader(), raw).value("a") == "\xff\xfe"


@pytest.mark.parametrize("size", [MAX_HEADERS, 10**6])
def test_headers_are_bounded(size: int) -> None:
    with pytest.raises(Http2Error) as caught:
        HeaderReader().read(header_block([*START, ("a", "x" * size)]))
    assert caught.value.reason == Reason.ENHANCE_YOUR_CALM


def test_a_bomb_of_references_is_bounded() -> None:
    reader = HeaderReader()
    read(reader, hpack.Encoder().encode([*START, ("a", "x" * 4000)]))
    with pytest.raises(Http2Error) as caught:
        reader.read(b"\xbe" * 16_000)
    assert caught.value.reason == Reason.ENHANCE_YOUR_CALM


def test_keys_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        read(HeaderReader(), header_block([*START, ("authorization", "Bearer ym_secret")]))
    assert "secret" not in caplog.text
