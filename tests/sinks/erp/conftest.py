"""The ERPs under test. Tryton's environment is set up once per checkout, and each Tryton has a database of its own."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.tryton_database import Company, TrytonDatabases
from stack.tryton_environment import prepare
from tests.sinks.erp.contract.harness import ErpUnderTest
from tests.sinks.erp.contract.journal_erp import JournalErp
from tests.sinks.erp.contract.rest_erp import RestErp
from tests.sinks.erp.contract.tryton_erp import TrytonErp
from tests.sinks.erp.tryton_company import SPECIFICATION

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def tryton_databases(postgres_url: str) -> TrytonDatabases:
    """Return the PostgreSQL server with Tryton's tools; the first call of a checkout installs them.

    Offline the installation fails, and with it every test that needs it: a skip would hide that Tryton is not tested.
    """
    return TrytonDatabases(ROOT, prepare(ROOT), postgres_url)


@pytest.fixture(scope="session")
def tryton_template(tryton_databases: TrytonDatabases) -> tuple[str, Company]:
    """Return the name of a database with the company, to be copied, and the company."""
    name = f"tryton_template_{uuid.uuid4().hex[:8]}"
    return name, tryton_databases.set_up(name, SPECIFICATION)


MakeTryton = Callable[[str, Path], TrytonErp]


@pytest.fixture(scope="session")
def make_tryton(tryton_databases: TrytonDatabases, tryton_template: tuple[str, Company]) -> MakeTryton:
    """Return a maker of Tryton servers, each on a fresh copy of the company's database."""

    def make(name: str, folder: Path) -> TrytonErp:
        database = f"tryton_{uuid.uuid4().hex[:12]}"
        tryton_databases.copy(tryton_template[0], database)
        return TrytonErp(name, folder, tryton_databases, database, tryton_template[1])

    return make


Erps = Callable[[str], ErpUnderTest]


@pytest.fixture(scope="session")
def erps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Erps]:
    """Make each ERP when it is first needed, and end them all with the session. Tests use fresh keys and days."""
    made: dict[str, ErpUnderTest] = {}

    def make(name: str, folder: Path) -> ErpUnderTest:
        if name == "journal":
            return JournalErp(folder)
        if name.startswith("rest-"):
            return RestErp(name.removeprefix("rest-"), folder)
        make_one: MakeTryton = request.getfixturevalue("make_tryton")
        return make_one(name, folder)

    def get(name: str) -> ErpUnderTest:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name))
        made[name].heal()
        return made[name]

    yield get
    for one in made.values():
        one.close()
