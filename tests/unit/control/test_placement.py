import pytest

from yunmo.control.services.placement import Placement
from yunmo.core.errors import Conflict

NOW = 1000.0
LIVE = Placement("v1")


def roles(placement: Placement, *, now: float = NOW, standby_seconds: float = 600) -> dict[str, tuple[str, int]]:
    return {role: (version, weight) for role, version, weight, _ in placement.parts(now, standby_seconds)}


def test_a_new_live_version_ends_trials_and_leaves_the_old_one_as_standby() -> None:
    tried = LIVE.with_canary("v2", 10).with_shadow("v3")
    assert roles(tried) == {"live": ("v1", 90), "canary": ("v2", 10), "shadow": ("v3", 100)}
    after = tried.with_live("v4", NOW)
    assert roles(after) == {"live": ("v4", 100), "standby": ("v1", 0)}
    assert after.parts(NOW, 600)[1][3] == NOW + 600


def test_a_promoted_canary_goes_back_to_what_was_live() -> None:
    after = LIVE.with_canary("v2", 10).with_live("v2", NOW)
    assert roles(after) == {"live": ("v2", 100), "standby": ("v1", 0)}
    back = after.rolled_back(NOW + 5)
    assert roles(back) == {"live": ("v1", 100), "standby": ("v2", 0)}
    assert roles(back.rolled_back(NOW + 6)) == roles(after)


def test_deploying_the_live_version_again_forgets_no_way_back() -> None:
    after = LIVE.with_live("v2", NOW)
    assert after.with_canary("v3", 50).with_live("v2", NOW + 100) == after


def test_a_version_has_one_part() -> None:
    assert roles(LIVE.with_shadow("v2").with_canary("v2", 5)) == {"live": ("v1", 95), "canary": ("v2", 5)}
    assert roles(LIVE.with_canary("v2", 5).with_shadow("v2")) == {"live": ("v1", 100), "shadow": ("v2", 100)}
    switched = LIVE.with_live("v2", NOW)
    assert roles(switched.with_canary("v1", 5)) == {"live": ("v2", 95), "canary": ("v1", 5)}
    for refused in (LIVE.with_shadow, lambda version: LIVE.with_canary(version, 5)):
        with pytest.raises(Conflict, match="its own"):
            refused("v1")


def test_another_canary_or_shadow_takes_the_place_of_the_first() -> None:
    assert roles(LIVE.with_canary("v2", 10).with_canary("v3", 20)) == {"live": ("v1", 80), "canary": ("v3", 20)}
    assert roles(LIVE.with_shadow("v2").with_shadow("v3")) == {"live": ("v1", 100), "shadow": ("v3", 100)}


def test_a_rollback_takes_trials_away_before_it_goes_back() -> None:
    tried = LIVE.with_live("v2", NOW).with_canary("v3", 10).with_shadow("v4")
    once = tried.rolled_back(NOW + 1)
    assert roles(once) == {"live": ("v2", 100), "standby": ("v1", 0)}
    assert roles(once.rolled_back(NOW + 2))["live"] == ("v1", 100)
    with pytest.raises(Conflict, match="no other version"):
        LIVE.rolled_back(NOW)


def test_a_standby_is_kept_for_so_long() -> None:
    switched = LIVE.with_live("v2", NOW)
    assert "standby" in roles(switched, now=NOW + 599)
    assert "standby" not in roles(switched, now=NOW + 600)
    assert "standby" not in roles(switched, standby_seconds=0)
    # A row of an older Yunmo does not say when it was switched.
    assert "standby" not in roles(Placement("v2", previous_id="v1"))


def test_limits_and_stickiness_stay_through_everything() -> None:
    limited = Placement("v1", concurrency=3, queue=4, timeout=5.0, sticky="key")
    for after in (
        limited.with_live("v2", NOW),
        limited.with_canary("v2", 5),
        limited.with_live("v2", NOW).rolled_back(NOW),
    ):
        assert (after.limits, after.sticky) == (limited.limits, "key")
