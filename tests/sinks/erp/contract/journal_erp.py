"""The journal under test. It has no network: the faults happen between the poster and the adapter."""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from sinks.erp.journal import JournalAdapter
from sinks.erp.journal_format import read_entries
from sinks.erp.port import (
    Capabilities,
    ErpEntry,
    ErpPort,
    Issue,
    MasterData,
    Outcome,
    Posting,
    PostingLine,
    Throttled,
    Unknown,
    Window,
)
from tests.sinks.erp.contract.harness import ErpUnderTest, Traits, TrueEntry
from tests.sinks.erp.fault_proxy import MIXED, FaultName, Reply


@dataclass
class Lane:
    """The faulty way between poster and adapter."""

    script: list[FaultName] = field(default_factory=list)
    chance: random.Random | None = None
    rate: float = 0.0
    sent: int = 0
    held: list[Callable[[], Any]] = field(default_factory=list)
    reply: Reply = field(default_factory=lambda: Reply(503))

    def next_fault(self) -> FaultName:
        self.sent += 1
        if self.script:
            return self.script.pop(0)
        if self.chance is not None and self.chance.random() < self.rate:
            return self.chance.choice(MIXED)
        return "pass"


class FaultyAdapter:
    """An adapter whose submits meet the lane's faults; everything else goes straight through."""

    def __init__(self, inner: ErpPort, lane: Lane) -> None:
        self._inner = inner
        self._lane = lane

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        fault = self._lane.next_fault()

        def send() -> list[Outcome]:
            return self._inner.submit(postings, attempt_id)

        match fault:
            case "pass":
                return send()
            case "lose_request":
                return [Unknown(fault) for _ in postings]
            case "delay_request":
                self._lane.held.append(send)
                return [Unknown(fault) for _ in postings]
            case "answer":
                wait = next((value for name, value in self._lane.reply.headers if name == "Retry-After"), None)
                return [Throttled(None if wait is None else float(wait)) for _ in postings]
            case "duplicate":
                send()
                return send()
            case _:
                send()
                return [Unknown(fault) for _ in postings]

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        return self._inner.preflight(postings)

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        return self._inner.lookup(keys)

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        return self._inner.poll(jobs)

    def reverse(self, entry: ErpEntry, posting: Posting) -> Outcome:
        return self._inner.reverse(entry, posting)

    def sweep(self) -> int:
        return self._inner.sweep()

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        return self._inner.read_back(window)

    def expected(self, posting: Posting) -> tuple[tuple[str, Decimal], ...]:
        return self._inner.expected(posting)

    def balances(self) -> dict[tuple[str, str], Decimal]:
        return self._inner.balances()

    def named_customer(self, posting: Posting, line: PostingLine) -> str:
        return self._inner.named_customer(posting, line)

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        return self._inner.customer_balances(accounts, until)

    def master_data(self) -> MasterData:
        return self._inner.master_data()


class JournalErp(ErpUnderTest):
    """Books in a folder."""

    name = "journal"
    traits = Traits(
        is_server=False,
        # The journal takes any account, customer and period: it is the books of somebody who has no ERP yet.
        reasons={
            "unknown_account": "posted",
            "unknown_customer": "posted",
            "missing_dimension": "posted",
            "closed_period": "posted",
        },
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "books"
        self.lane = Lane()

    def adapter(self, **changes: Any) -> ErpPort:
        return FaultyAdapter(JournalAdapter(self.folder), self.lane)

    def _files(self) -> list[Path]:
        return sorted(self.folder.rglob("[0-9]*.beancount"))

    def truth(self, keys: Sequence[str]) -> dict[str, list[TrueEntry]]:
        found: dict[str, list[TrueEntry]] = {one: [] for one in keys}
        for path in self._files():
            blocks = [
                (one, block) for block in path.read_text().split("\n\n") for one in read_entries(block.split("\n"))
            ]
            for entry, block in blocks:
                if entry.key in found:
                    sums: dict[str, Decimal] = {}
                    for account, amount in entry.lines:
                        sums[account] = sums.get(account, Decimal(0)) + amount
                    true = TrueEntry(entry.key, f"J-{entry.number:08d}", sums, len(entry.lines), block)
                    found[entry.key].append(true)
        return found

    def faults(self, *names: FaultName, reply: Reply | None = None) -> None:
        self.lane.script = list(names)
        self.lane.reply = reply or self.lane.reply

    def mix_faults(self, seed: int, rate: float) -> None:
        self.lane.chance, self.lane.rate = random.Random(seed), rate

    def heal(self) -> None:
        self.lane.script.clear()
        self.lane.chance = None

    def release(self) -> None:
        held, self.lane.held = self.lane.held, []
        for send in held:
            send()

    def sent(self) -> int:
        return self.lane.sent

    def close(self) -> None:
        """Leave the folder to pytest."""

    def break_credentials(self) -> str:
        """Take the folder away: the journal's only credential is that it may write there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.rename(self.folder.with_name("away"))
        self.folder.write_text("not a folder")
        return ""

    def renew_credentials(self) -> None:
        self.folder.unlink()
        self.folder.with_name("away").rename(self.folder)

    def _edit(self, key_: str, change: Callable[[str], str]) -> None:
        for path in self._files():
            blocks = path.read_text().split("\n\n")
            changed = [change(block) if f'key: "{key_}"' in block else block for block in blocks]
            if changed != blocks:
                path.write_text("\n\n".join(block for block in changed if block) + "\n\n")

    def plant_edit(self, key_: str) -> None:
        self._edit(key_, lambda block: block.replace("  12.34 USD", "  99.99 USD"))

    def plant_deletion(self, key_: str) -> None:
        self._edit(key_, lambda _: "")

    def plant_duplicate(self, key_: str) -> bool:
        self._edit(key_, lambda block: f"{block}\n\n{block}")
        return True
