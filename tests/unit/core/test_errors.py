import copy

import pytest

from yunmo.core import errors
from yunmo.core.errors import ERRORS, DataError, InternalError, YunmoError, from_problem, problem


def classes() -> list[type[YunmoError]]:
    found, queue = [], [YunmoError]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == errors.__name__ and kind is not YunmoError]


def test_every_error_class_is_in_the_table_under_its_own_code() -> None:
    assert {kind.code: kind for kind in classes()} == ERRORS
    assert len(classes()) == len(ERRORS)


@pytest.mark.parametrize("kind", ERRORS.values())
def test_a_problem_document_turns_back_into_its_error(kind: type[YunmoError]) -> None:
    error = kind("no such column", where="a.csv", remedy="Name another")
    document = problem(error, instance="req_1")
    assert document["status"] == kind.status
    assert document["instance"] == "req_1"
    back = from_problem(document)
    assert type(back) is kind
    assert (back.message, back.where, back.remedy) == ("no such column", "a.csv", "Name another")


def test_an_unknown_code_is_an_internal_error() -> None:
    assert type(from_problem({"code": "new", "detail": "x"})) is InternalError


def test_an_error_is_one_line_with_where_what_and_remedy() -> None:
    error = DataError("not a number", where="a.csv, row 3, field age", remedy="Mend the cell")
    assert str(error) == "a.csv, row 3, field age: not a number. Mend the cell"
    assert str(copy.copy(error)) == str(error)


def test_a_question_keeps_its_mark() -> None:
    assert str(DataError("which column?", where="t.csv", remedy="Name it")) == "t.csv: which column? Name it"
