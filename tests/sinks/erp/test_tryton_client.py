"""What Tryton's answers prove, without a Tryton."""

import pytest

from sinks.erp.http_calls import Answer
from sinks.erp.port import NotSent, Rejected, Throttled, Unknown
from sinks.erp.tryton_client import refusal

HTML = "<html><title>404 Not Found</title></html>"
UNIQUE = '{"status": 400, "message": "The external id of an account move must be unique in its company."}'


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, "[]", None),
        (204, "", None),
        (400, '{"status": 400, "message": "you must balance all its lines debits and credits"}', Rejected),
        (400, UNIQUE, Unknown),
        (400, HTML, Unknown),
        (401, HTML, NotSent),
        # The address, the database or the module is wrong: a person would have to release every posting by hand.
        (404, HTML, NotSent),
        (405, HTML, NotSent),
        (413, HTML, Rejected),  # the batch is cut in two
        (429, HTML, Throttled),
        (500, HTML, Unknown),
        (502, HTML, Unknown),
        (503, "could not obtain lock on row", Throttled),
        (503, HTML, Unknown),
    ],
)
def test_an_answer_is_called_no_more_than_it_proves(status: int, body: str, kind: type | None) -> None:
    found = refusal(Answer(status, {}, body))
    assert (None if found is None else type(found)) is kind
