from __future__ import annotations

import grpc
import pytest

from yunmo.core.errors import ERRORS
from yunmo.serving.grpc.status import STATUS, Status, status_of

NUMBERS = {code.value[0]: code for code in grpc.StatusCode}


@pytest.mark.parametrize("status", Status)
def test_numbers_are_those_of_grpc(status: Status) -> None:
    assert NUMBERS[status].name == status.name


def test_every_error_has_a_status_of_its_own_choice() -> None:
    assert set(ERRORS) == set(STATUS)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_no_error_is_success_and_clients_can_tell_whose_fault_it_is(code: str) -> None:
    kind = ERRORS[code]
    status = NUMBERS[status_of(kind("x"))]
    assert status not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    assert (status == grpc.StatusCode.UNAUTHENTICATED) == (kind.status == 401)
    assert (status == grpc.StatusCode.PERMISSION_DENIED) == (kind.status == 403)
    assert (status == grpc.StatusCode.NOT_FOUND) == (kind.status == 404)
    assert (status == grpc.StatusCode.UNAVAILABLE) == (kind.status == 503)
