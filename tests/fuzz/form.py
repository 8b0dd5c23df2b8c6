"""Fuzzes multipart forms of the native API; what is taken, written again, is read as the same."""

from __future__ import annotations

from typing import Any

from tests.fuzz.driver import fuzz, watched

with watched("python_multipart"):
    from yunmo.serving.native.bodies import check_type, read_rows

BOUNDARY = "XyZ"


class Anything:
    """Takes a raw body of any type."""

    raw_types = ()

    def single_input(self, media_type: str) -> str | None:
        del media_type
        return None


def check(data: bytes) -> None:
    """Read a body; its first line is the content type's parameters."""
    parameters, _, body = data.partition(b"\n")
    content_type = "multipart/form-data" + parameters.decode("latin-1").replace("\r", "")
    check_type(content_type, None, Anything())
    rows = read_rows(body, content_type, Anything())
    if not content_type.startswith("multipart/form-data;"):
        return  # the first line made another type of it
    (row,) = rows
    plain = {name: value for name, value in row.items() if name.isascii() and name.isalnum()}
    if plain:
        boundary = next(text for text in ("AaB", "CcD", "EeF") if text.encode() not in body)
        again = read_rows(written(plain, boundary), f"multipart/form-data; boundary={boundary}", Anything())
        assert again == [plain], "read otherwise the second time"


def written(row: dict[str, Any], boundary: str) -> bytes:
    """Return a row as a form (RFC 7578)."""
    parts = b""
    for name, value in row.items():
        file = "; filename=x" if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts += head.encode() + content + b"\r\n"
    return parts + f"--{boundary}--\r\n".encode()


if __name__ == "__main__":
    form = written({"image": b"\x89PNG\r\n\x1a\n\x00\xff", "age": "3"}, BOUNDARY)
    fuzz(
        check,
        [
            f"; boundary={BOUNDARY}\n".encode() + form,
            f'; boundary="{BOUNDARY}"; charset=utf-8\n'.encode() + form,
            b"; boundary=\n" + form,
            b"\n" + form,
        ],
        [
            *(
                b"--XyZ",
                b"--XyZ--",
                b"\r\n",
                b"\r\n\r\n",
                b"Content-Disposition: form-data",
                b'; name="',
                b"; filename=",
            ),
            *(b"Content-Type: text/plain", b"filename*=utf-8''a", b"name*0=", b"name*=", b"boundary*=x''", b"charset="),
            *(b"Content-Transfer-Encoding: base64", b"\x00", b'\\"', b"%00"),
        ],
    )
