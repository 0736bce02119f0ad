from flows import steps


def test_step_ids_are_pinned_because_state_is_loaded_by_them() -> None:
    assert steps.FLOW == "metering"
    assert (
        steps.READ,
        steps.DECODE,
        steps.DEDUPE,
        steps.TO_TENANT,
        steps.BOOK,
        steps.TO_CUSTOMER,
        steps.RATE,
        steps.DOCUMENT,
        steps.OUTBOX,
    ) == ("read", "decode", "dedupe", "to_tenant", "book", "to_customer", "rate", "document", "outbox")
