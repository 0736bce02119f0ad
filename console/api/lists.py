"""What the lists of the API have in common: their answers, and how a page is described."""

from collections.abc import Mapping
from typing import Any, Final

from console.answers import CSV, JSON, PARQUET
from console.api.openapi import problem_answer
from console.endpoint import Answer

CACHED: Final = {"If-None-Match": "ETag of an answer the caller has."}
NOT_CHANGED: Final = Answer("The answer is what the caller has.", headers=("ETag",))


def list_answers(kind: Any, description: str) -> Mapping[int, Answer]:
    """Return the answers of a list whose JSON page is of that type."""
    return {
        200: Answer(description, {JSON: kind, CSV: None, PARQUET: None}, ("ETag", "Link")),
        304: NOT_CHANGED,
        406: problem_answer(406),
        422: problem_answer(422),
    }


def one_answers(kind: Any, description: str) -> Mapping[int, Answer]:
    """Return the answers of one thing that is asked for by its name."""
    return {
        200: Answer(description, {JSON: kind}, ("ETag",)),
        304: NOT_CHANGED,
        404: problem_answer(404),
        422: problem_answer(422),
    }


def report_answers(kind: Any, description: str, *, named: bool = True) -> Mapping[int, Answer]:
    """Return the answers of one thing that is made of rows, too; `named`: it is asked for by a name."""
    answers = {
        200: Answer(description, {JSON: kind, CSV: None, PARQUET: None}, ("ETag",)),
        304: NOT_CHANGED,
        406: problem_answer(406),
        422: problem_answer(422),
    }
    return answers | ({404: problem_answer(404)} if named else {})
