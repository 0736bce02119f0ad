"""The prices of a contract: a plan version's charges with the contract's overrides, and which of them price what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from config.customers import Contract
from config.price_corrections import in_force
from config.revision import Revision
from core.errors import InvariantViolation
from operators.rating.charges import Charge, parse_charge
from operators.rating.schema import Filter, Matrix, Simple, passes


class Price(NamedTuple):
    """What is rated on its own: a charge, or one row of a matrix."""

    charge: Simple
    price_row: str

    @property
    def name(self) -> str:
        """Return the charge's id, and behind it the row of a matrix."""
        return f"{self.charge.id}/{self.price_row}" if self.price_row else self.charge.id


@dataclass(frozen=True, slots=True)
class _Alternatives:
    """The prices of one charge: usage that passes its filter has the first price that takes it, or none."""

    filter: Filter
    places: tuple[int, ...]


class Pricing:
    """The prices of one plan version as one contract has them."""

    def __init__(self, charges: tuple[Charge, ...]) -> None:
        self.charges: Final = charges
        prices: list[Price] = []
        self._by_meter: dict[str, list[_Alternatives]] = {}
        for charge in charges:
            rows: list[Price] = [Price(charge, "")] if not isinstance(charge, Matrix) else []
            if isinstance(charge, Matrix):
                rows = [Price(row, charge.name_of(row)) for row in charge.rows]
            first = len(prices)
            prices += rows
            if charge.meter:
                places = tuple(range(first, len(prices)))
                self._by_meter.setdefault(charge.meter, []).append(_Alternatives(charge.filter, places))
        self.prices: Final = tuple(prices)

    def matching(self, meter: str, dimensions: Mapping[str, str]) -> list[int] | None:
        """Return the places of the prices of this series, none if no charge is for it.

        None means that a charge is for it but has no price: a matrix without a fitting row, or a price event by
        event, which facts cannot give. Such usage is not rated in part: the other charges wait for it as well.
        """
        found = []
        for one in self._by_meter.get(meter, ()):
            if not passes(one.filter, dimensions):
                continue
            place = next((place for place in one.places if passes(self.prices[place].charge.filter, dimensions)), None)
            if place is None or self.prices[place].charge.looks_at_each_event:
                return None
            found.append(place)
        return found

    def price(self, charge: str, price_row: str) -> Simple | None:
        """Return what a charge (or a row of it) says, None if there is none of that name."""
        return next((one.charge for one in self.prices if (one.charge.id, one.price_row) == (charge, price_row)), None)


class Pricings:
    """Parsed charges per (plan, version, overrides): most contracts share them.

    Contracts are known by identity: they live as long as the revision.
    """

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._known: dict[tuple[str, int, str, str], Pricing] = {}
        self._of_contract: dict[tuple[int, int, str], Pricing] = {}

    def of(self, contract: Contract, version: int, period_start: datetime) -> Pricing:
        """Return the charges of the contract under that plan version in the billing period that begins then.

        Prices corrected for the period take the place of the version's; the contract's overrides are laid over them.
        """
        corrections = self._revision.configuration.price_corrections
        corrected = in_force(corrections, contract.plan, version, period_start) if corrections else None
        correction = "" if corrected is None else corrected[0].id
        place = (id(contract), version, correction)
        if place in self._of_contract:
            return self._of_contract[place]
        overrides = repr([(override.charge, override.set) for override in contract.overrides])
        key = (contract.plan, version, correction, overrides)
        found = self._known.get(key)
        if found is None:
            raw = self._revision.plans[contract.plan].versions[version - 1].charges
            found = self._parse(contract, version, raw if corrected is None else corrected[1].charges)
        self._known[key] = self._of_contract[place] = found
        return found

    def _parse(self, contract: Contract, version: int, raw_charges: Sequence[dict[str, Any]]) -> Pricing:
        return Pricing(tuple(self._charge(raw, contract, version) for raw in raw_charges))

    @staticmethod
    def _charge(raw: dict[str, Any], contract: Contract, version: int) -> Charge:
        merged = dict(raw)
        for override in contract.overrides:
            if override.charge == raw.get("id"):
                merged |= override.set
        try:
            return parse_charge(merged)
        except ValueError as error:
            message = (
                f"plan {contract.plan} version {version}, charge {raw.get('id')!r} of contract {contract.id}: "
                f"{error}; run `meterbridge config check`"
            )
            raise InvariantViolation(message) from error
