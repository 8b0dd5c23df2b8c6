"""Runs in an environment of its own that has tritonclient and not Yunmo: what its users would write.

Prints a JSON object of what it saw; the test that started it judges that.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException


def error_of(work: Any) -> dict[str, Any]:
    try:
        work()
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return {"status": None, "message": "no error"}


def key_headers(key: str) -> Callable[[], dict[str, str]]:
    # New ones for each request: the HTTP client writes the length of its JSON document into those it is given.
    return lambda: {"authorization": f"Bearer {key}"}


def plain(value: np.ndarray[Any, Any]) -> Any:
    if value.dtype != object:
        return value.tolist()
    return [each.decode() if isinstance(each, bytes) else each for each in value.ravel()]


def tensor(library: Any, name: str, value: np.ndarray[Any, Any], datatype: str, **more: Any) -> Any:
    given = library.InferInput(name, list(value.shape), datatype)
    given.set_data_from_numpy(value, **more)
    return given


def table(library: Any, **more: Any) -> list[Any]:
    return [
        tensor(library, "age", np.array([3.5, 70.0]), "FP64", **more),
        tensor(library, "city", np.array(["Berlin", "Beijing"], object), "BYTES", **more),
    ]


def answers(result: Any, *names: str) -> dict[str, Any]:
    return {name: plain(result.as_numpy(name)) for name in names}


def common(library: Any, client: Any, auth: Callable[[], dict[str, str]], picture: bytes) -> dict[str, Any]:
    """Everything that both clients can do alike."""
    file = np.array([picture], object)
    pixels = np.full((2, 8, 8, 3), 120, np.uint8)
    both = ("label", "label.probabilities")
    asked = [library.InferRequestedOutput("label.probabilities"), library.InferRequestedOutput("label")]
    narrow = [
        tensor(library, "age", np.array([3.5, np.nan], np.float32), "FP32"),
        tensor(library, "city", np.array([b"Berlin", b""], object), "BYTES"),
    ]
    seen: dict[str, Any] = {
        "live": client.is_server_live(headers=auth()),
        "ready": client.is_server_ready(headers=auth()),
        "model_ready": client.is_model_ready("table", headers=auth()),
        "version_ready": client.is_model_ready("table", "1", headers=auth()),
        "table": answers(client.infer("table", table(library), headers=auth()), *both, "price"),
        "missing": answers(client.infer("table", narrow, headers=auth()), "price"),
        "versioned": answers(client.infer("table", table(library), model_version="1", headers=auth()), "price"),
        "file": answers(
            client.infer("pictures", [tensor(library, "image", file, "BYTES")], outputs=asked, headers=auth()), *both
        ),
        "pixels": answers(client.infer("pictures", [tensor(library, "image", pixels, "UINT8")], headers=auth()), *both),
        "id": client.infer("table", table(library), request_id="abc 1", headers=auth()).get_response(),
        "timeout": answers(client.infer("table", table(library), timeout=9_000_000, headers=auth()), "label"),
        "priority": answers(client.infer("table", table(library), priority=1, headers=auth()), "label"),
        "unknown_model": error_of(lambda: client.infer("none", table(library), headers=auth())),
        "unknown_version": error_of(lambda: client.infer("table", table(library), model_version="9", headers=auth())),
        "no_key": error_of(lambda: client.infer("table", table(library))),
        "missing_input": error_of(lambda: client.infer("table", table(library)[:1], headers=auth())),
        "wrong_type": error_of(
            lambda: client.infer("pictures", [tensor(library, "image", np.zeros(3), "FP64")], headers=auth())
        ),
        "bad_picture": error_of(
            lambda: client.infer(
                "pictures", [tensor(library, "image", np.array([b"no picture"], object), "BYTES")], headers=auth()
            )
        ),
        "parameter": error_of(
            lambda: client.infer("table", table(library), parameters={"colour": "red"}, headers=auth())
        ),
        "sequence": error_of(lambda: client.infer("table", table(library), sequence_id=1, headers=auth())),
    }
    response = seen["id"]
    seen["id"] = response["id"] if isinstance(response, dict) else response.id
    return seen


def http(url: str, key: str, picture: bytes) -> dict[str, Any]:
    auth = key_headers(key)
    with triton_http.InferenceServerClient(url, concurrency=4) as client:
        seen = common(triton_http, client, auth, picture)
        seen["server"] = client.get_server_metadata(headers=auth())
        seen["metadata"] = client.get_model_metadata("table", headers=auth())
        seen["index"] = client.get_model_repository_index(headers=auth())
        outputs = [triton_http.InferRequestedOutput(name, binary_data=False) for name in ("label", "price")]
        seen["json"] = answers(
            client.infer("table", table(triton_http, binary_data=False), outputs=outputs, headers=auth()),
            "label",
            "price",
        )
        pending = [client.async_infer("table", table(triton_http), headers=auth()) for _ in range(20)]
        seen["async"] = [answers(each.get_result(), "price") for each in pending]
    return seen


def grpc(url: str, key: str, picture: bytes) -> dict[str, Any]:
    auth = key_headers(key)
    with triton_grpc.InferenceServerClient(url) as client:
        seen = common(triton_grpc, client, auth, picture)
        seen["server"] = client.get_server_metadata(headers=auth(), as_json=True)
        seen["metadata"] = client.get_model_metadata("table", headers=auth(), as_json=True)
        seen["index"] = client.get_model_repository_index(headers=auth(), as_json=True)["models"]
        seen["no_such_method"] = error_of(lambda: client.get_model_config("table", headers=auth()))
        seen["no_such_method_no_key"] = error_of(lambda: client.get_model_config("table"))
        futures: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(20):
            client.async_infer(
                "table", table(triton_grpc), lambda result, error: futures.put(error or result), headers=auth()
            )
        seen["async"] = [answers(futures.get(timeout=20), "price") for _ in range(20)]
    return seen


async def aio(http_url: str, grpc_url: str, key: str) -> dict[str, Any]:
    auth = key_headers(key)
    async with triton_http_aio.InferenceServerClient(http_url) as client:
        many = [client.infer("table", table(triton_http_aio), headers=auth()) for _ in range(20)]
        over_http = [answers(each, "price") for each in await asyncio.gather(*many)]
    async with triton_grpc_aio.InferenceServerClient(grpc_url) as client:
        many = [client.infer("table", table(triton_grpc_aio), headers=auth()) for _ in range(20)]
        over_grpc = [answers(each, "price") for each in await asyncio.gather(*many)]
    return {"http": over_http, "grpc": over_grpc}


def main() -> None:
    http_url, grpc_url, key, picture = sys.argv[1], sys.argv[2], sys.argv[3], bytes.fromhex(sys.argv[4])
    seen = {
        "http": http(http_url, key, picture),
        "grpc": grpc(grpc_url, key, picture),
        "aio": asyncio.run(aio(http_url, grpc_url, key)),
    }
    json.dump(seen, sys.stdout, default=str)


if __name__ == "__main__":
    main()
