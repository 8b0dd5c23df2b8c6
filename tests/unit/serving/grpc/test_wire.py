from __future__ import annotations

import gzip
import zlib

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunmo.core.errors import BodyTooLarge, InvalidInput, Malformed, UnsupportedMediaType
from yunmo.serving.grpc.status import Status
from yunmo.serving.grpc.wire import ANSWER, GOOD, NO_GRPC, PREFIX, failure, message_of, timeout_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("99999999n", 0.099999999), (None, None)],
)
def test_timeouts(text: str | None, seconds: float | None) -> None:
    assert timeout_of(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["", "1", "S", "-1S", "1.5S", "123456789S", "1s", "1S ", "\u0661S", "1S\n"])
def test_what_is_no_timeout(text: str) -> None:
    with pytest.raises(InvalidInput, match="grpc-timeout"):
        timeout_of(text)


@given(st.binary(max_size=200))
def test_messages(message: bytes) -> None:
    framed = PREFIX.pack(0, len(message)) + message
    assert message_of(framed, None, 200) == message
    for encoding, packed in (("gzip", gzip.compress(message)), ("deflate", zlib.compress(message))):
        assert message_of(PREFIX.pack(1, len(packed)) + packed, encoding, 200) == message


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (b"", None, Malformed),
        (b"\0\0\0\0", None, Malformed),
        (b"\0\0\0\0\5abc", None, Malformed),
        (b"\0\0\0\0\1abc", None, Malformed),
        (b"\0\0\0\0\1a" * 2, None, Malformed),
        (b"\2\0\0\0\1a", None, Malformed),
        (b"\1\0\0\0\1a", "gzip", Malformed),
        (b"\1\0\0\0\1a", "snappy", UnsupportedMediaType),
        (b"\1\0\0\0\1a", None, UnsupportedMediaType),
        (PREFIX.pack(1, 20) + gzip.compress(b"hello world", mtime=0)[:20], "gzip", Malformed),
        (PREFIX.pack(1, 33) + gzip.compress(b"hello world", mtime=0) + b"xy", "gzip", Malformed),
        (PREFIX.pack(1, len(zlib.compress(bytes(101)))) + zlib.compress(bytes(101)), "deflate", BodyTooLarge),
    ],
)
def test_what_is_no_message(body: bytes, encoding: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        message_of(body, encoding, 100)


def test_blocks_are_what_another_library_reads() -> None:
    def read(block: bytes) -> list[tuple[str, str]]:
        return [(str(name), str(value)) for name, value in hpack.Decoder().decode(block)]

    assert (":status", "200") in read(ANSWER)
    assert read(GOOD) == [("grpc-status", "0")]
    assert read(NO_GRPC) == [(":status", "415")]
    said = dict(read(failure(Status.NOT_FOUND, "no 'ä' of 100 %\n" + "x" * 500, (("retry-after", "1"),))))
    assert said["grpc-status"] == "5"
    assert said["grpc-message"] == "no '%C3%A4' of 100 %25%0A" + "x" * 500
    assert said["retry-after"] == "1"
