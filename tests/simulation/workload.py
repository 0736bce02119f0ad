"""Producers of a simulated run: late, early, doubled, contradicting, taken back and broken events, in a few hours."""

from datetime import timedelta
from typing import Any

import orjson

from core.clock import ManualClock
from tests.flows.oracle import stream_of
from tests.simulation.fate import Fate
from tests.simulation.redis_server import Server

HOUR_S = 3600
USAGE_OFFSETS_S = (0, 0, 0, -1, -20, -59, -61, -130, -1 * HOUR_S, -5 * HOUR_S, -30 * HOUR_S, 100)
REFUSED_OFFSETS_S = (400, -40 * 24 * HOUR_S)
SUBJECTS = ("acme", "acme-eu", "beta", "nobody")


class Producers:
    """Send events; an acknowledgement that was lost makes them send the same event again, soon or late.

    `own_streams`: each subject stays on its stream, as the product's own producers do it. With several readers that
    is needed for a decision that is the same on every replay; with one it is not.
    """

    def __init__(
        self,
        fate: Fate,
        server: Server,
        clock: ManualClock,
        streams: tuple[str, ...],
        *,
        own_streams: bool,
        sends_voids: bool,
    ) -> None:
        self._fate, self._server, self._clock, self._streams = fate, server, clock, streams
        self._own_streams = own_streams
        self._sends_voids = sends_voids
        self._sent: list[dict[str, Any]] = []
        self._unacknowledged: list[dict[str, Any]] = []
        self._number = 0

    def act(self) -> None:
        """Send something."""
        chance = self._fate.random
        draw = chance.random()
        if draw < 0.12 and self._unacknowledged:
            self._send([self._unacknowledged.pop(chance.randrange(len(self._unacknowledged)))])
        elif draw < 0.22 and self._sent:
            self._send([self._altered(chance.choice(self._sent))])
        elif draw < 0.32 and self._sent and self._sends_voids:
            self._send([self._void(chance.choice(self._sent))])
        elif draw < 0.38:
            self._send_broken()
        else:
            self._send([self._event() for _ in range(chance.choice((1, 1, 1, 4)))])

    def _send(self, events: list[dict[str, Any]]) -> None:
        """Send events of one subject as one entry, or one by one."""
        chance = self._fate.random
        groups: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            groups.setdefault(event["subject"], []).append(event)
        for subject, members in groups.items():
            stream = self._streams[stream_of(subject, len(self._streams))]
            if not self._own_streams and chance.random() < 0.2:
                stream = chance.choice(self._streams)
            if len(members) > 1 and chance.random() < 0.5:
                self._server.add(stream, [b"events", b"\n".join(orjson.dumps(one) for one in members)])
            else:
                for one in members:
                    self._server.add(stream, [b"event", orjson.dumps(one)])
            self._sent += members
            if chance.random() < 0.3:
                self._unacknowledged += members

    def _event(self) -> dict[str, Any]:
        chance = self._fate.random
        self._number += 1
        offset_s = chance.choice(USAGE_OFFSETS_S if chance.random() < 0.95 else REFUSED_OFFSETS_S)
        time = self._clock.now() + timedelta(seconds=offset_s)
        kind = chance.choice(("t", "t", "t", "u", "unmetered"))
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"e{self._number}",
            "source": chance.choice(("a", "b")),
            "type": kind,
            "subject": chance.choice(SUBJECTS),
            "data": self._data(kind),
        }
        if chance.random() < 0.9:
            event["time"] = time.isoformat().replace("+00:00", "Z")
        return event

    def _data(self, kind: str) -> dict[str, Any]:
        chance = self._fate.random
        if kind == "u":
            return {"level": chance.choice((0, 1, 2.5, "3.25")), "user": f"user-{chance.randrange(2)}"}
        tokens = chance.choice((0, 1, "0.1", 0.3, 5, "2.000000000001", "no number"))
        return {"tokens": tokens, "model": chance.choice(("m1", "m2")), "user": f"user-{chance.randrange(4)}"}

    def _altered(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return another event under the same identity, or the very same one."""
        if event["type"] == "meterbridge.void" or self._fate.random.random() < 0.4:
            return event
        return event | {"data": event["data"] | {"note": self._fate.random.randrange(2)}}

    def _void(self, event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] == "meterbridge.void" or event["data"].get("tokens") == "no number":
            return event  # a void of an event that no meter can read is invalid_field, which the oracle does not know
        self._number += 1
        return {
            "specversion": "1.0",
            "id": f"v{self._number}",
            "source": event["source"],
            "type": "meterbridge.void",
            "subject": event["subject"],
            "data": event,
        }

    def _send_broken(self) -> None:
        chance = self._fate.random
        fields = chance.choice(
            (
                [b"event", b"{"],
                [b"event", b'{"specversion":"1.0"}'],
                [b"other", b"1"],
                [b"events", b'[]\n{"specversion":"1.0","id":"1"}'],
            )
        )
        self._server.add(chance.choice(self._streams), fields)
