"""What DBOS keeps of workflows, as JSON: its default is pickle, which a file must never be."""

from __future__ import annotations

from typing import Any

import msgspec
from dbos import Serializer


class JsonSerializer(Serializer):
    """Plain data as JSON. Errors don't pass here: steps return them as problem documents."""

    def serialize(self, data: Any) -> str:
        """Return data as JSON; of an error, which only a defect can bring here, what it says."""
        if isinstance(data, BaseException):
            data = {"error": f"{type(data).__name__}: {data}"}
        return msgspec.json.encode(data).decode()

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805 - the base class's signature
        """Return the data of a JSON text; of an error an exception, as DBOS raises what it gets."""
        data = msgspec.json.decode(serialized_data)
        if isinstance(data, dict) and data.keys() == {"error"}:
            return RuntimeError(data["error"])
        return data

    def name(self) -> str:
        """Return the name under which DBOS knows this form."""
        return "yunmo_json"
