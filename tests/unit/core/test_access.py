import pytest

from yunmo.core.access import KeyRecord, Principal, authenticate, hash_key, key_prefix, new_key, principal_of


def record(prefix: str, hashed: str, expires_at: float | None = None) -> KeyRecord:
    return KeyRecord(
        id="key_1",
        project_id="default",
        name="k",
        prefix=prefix,
        hash=hashed,
        scopes=("predict",),
        endpoints=("pets",),
        expires_at=expires_at,
    )


def test_a_key_authenticates_as_its_record_says() -> None:
    key, prefix, hashed = new_key()
    found = authenticate(key, {prefix: record(prefix, hashed)}, now=0)
    assert found is not None
    principal = principal_of(found)
    assert principal.may_call("pets")
    assert not principal.may_call("other")
    assert not principal.may("read")


def test_only_the_whole_right_key_authenticates() -> None:
    key, prefix, hashed = new_key()
    records = {prefix: record(prefix, hashed, expires_at=100)}
    assert authenticate(key, records, now=99) is not None
    assert authenticate(key, records, now=100) is None
    other, _, _ = new_key()
    for wrong in (
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key + "A",
        "",
        "ym_",
        f"ym_{prefix}_{other[12:]}",
        other,
    ):
        assert authenticate(wrong, records, now=0) is None


def test_the_hash_does_not_hold_the_key() -> None:
    key, prefix, hashed = new_key()
    assert key_prefix(key) == prefix
    assert hash_key(key) == hashed
    assert key not in hashed
    assert len({new_key()[0] for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("scopes", "may", "may_not"),
    [
        ({"admin"}, ["read", "write", "admin", "predict"], []),
        ({"write"}, ["read", "write"], ["admin", "predict"]),
        ({"read"}, ["read"], ["write", "admin", "predict"]),
        ({"predict"}, ["predict"], ["read", "write", "admin"]),
        (set(), [], ["read", "write", "admin", "predict"]),
    ],
)
def test_scopes_give_no_more_than_they_say(scopes: set[str], may: list[str], may_not: list[str]) -> None:
    principal = Principal(key_id="k", project_id="p", scopes=frozenset(scopes))
    assert all(principal.may(scope) for scope in may)
    assert not any(principal.may(scope) for scope in may_not)
