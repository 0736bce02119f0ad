"""The command `meterbridge`. Each command is a file of its own, imported when it is called."""

import importlib
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cli.context import Context, context, start
from core.collector import loading
from core.errors import CRASHED, ConfigError, FatalError, InvalidRequest, MeterbridgeError, Unreachable


class Entry(NamedTuple):
    """Where a command is: a function, or a typer app with commands of its own."""

    target: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "demo": Entry("cli.demo:demo", "Show the whole way from events to the books, on this machine."),
    "demo-erp": Entry("cli.demo_erp:demo_erp", "Show a month end with a real Tryton as the ERP, on this machine."),
    "up": Entry("cli.stack_commands:up", "Start the embedded servers: Valkey, ClickHouse, ledger."),
    "down": Entry("cli.stack_commands:down", "Stop the embedded servers; their data stays."),
    "status": Entry("cli.stack_commands:status", "Show which embedded servers run, and where."),
    "migrate": Entry("cli.migrate:migrate", "Create or update the tables, and journal the first configuration."),
    "doctor": Entry("cli.doctor:doctor", "Check versions, servers, rights and disk, and say what to fix."),
    "config": Entry("cli.config_commands:app", "Check the configuration, print its JSON schema."),
    "run": Entry("cli.run:run", "Run the metering flow."),
    "post": Entry("cli.post:post", "Deliver financial documents to the ERP."),
    "serve": Entry("cli.serve:serve", "Serve the API and the web console."),
    "token": Entry("cli.token:app", "Make, list and revoke tokens of the API and the console."),
    "send": Entry("cli.send:send", "Send CloudEvents from a file into the streams."),
    "backfill": Entry("cli.backfill:backfill", "Send history, previewed first, into open periods or booked now."),
    "simulate": Entry("cli.simulate:simulate", "Generate load: deterministic events of many tenants."),
    "quote": Entry("cli.quote:quote", "Price a quantity with a plan, and show the calculation."),
    "explain": Entry("cli.explain:explain", "Explain booked amounts: quantities, tiers and prices, before and after."),
    "trace": Entry("cli.trace:app", "Follow an event to the ERP, or a document back to its events."),
    "reconcile": Entry("cli.reconcile:reconcile", "Compare events, facts, rated rows, documents and postings."),
    "sums": Entry("cli.sums:sums", "Sum facts by hour for dashboards, now or again."),
    "whatif": Entry("cli.whatif:whatif", "Re-rate booked usage under other plans, and show the difference."),
    "rerate": Entry(
        "cli.rerate:rerate", "Charge booked usage by other prices, and book the differences as corrections."
    ),
    "erp": Entry("cli.erp:app", "Approve, reverse, close periods, pull master data, make invoices."),
    "report": Entry("cli.report:app", "Unbilled roll-forward and ageing, postings, accounting periods."),
    "close": Entry("cli.close:close", "Seal an accounting period: check it, and freeze a signed summary of it."),
    "retention": Entry("cli.retention:app", "Remove what is older than the policy says; legal holds."),
    "exceptions": Entry("cli.exceptions:app", "What needs a person, grouped by cause: list, show, retry, resolve."),
    "trim": Entry("cli.trim:trim", "Remove from the streams what is durably booked and old enough."),
    "verify": Entry(
        "cli.verify:verify", "Replay the streams and compare; or prove that a sealed period did not change."
    ),
    "replay": Entry(
        "cli.replay:replay", "Rebuild facts, rated rows and documents from events into files, and compare."
    ),
    "rebuild": Entry("cli.rebuild:rebuild", "Make lost or damaged working state again from the events."),
}
"""All commands in the order of `--help`. The help text stands here too, so that listing imports nothing."""


def _set_json(value: bool) -> bool:
    if value:
        context().json = True
    return value


def _template(
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON for machines.", callback=_set_json, expose_value=False),
    ] = False,
) -> None:
    """Hold the option that every command gets."""


def _build(target: Any, name: str, text: str) -> Any:
    """Return the click command of a function or typer app."""
    if isinstance(target, typer.Typer):
        return get_command(target)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(target)
    command = get_command(single)
    command.help = command.help or text
    return command


def _add_json(command: Any, *, nested: bool = False) -> None:
    """Give the command, or each of a group's and groups inside it, the option `--json` unless it has its own."""
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            _add_json(inner, nested=True)
        if not (command.invoke_without_command or nested):
            return
    if any("--json" in parameter.opts for parameter in command.params):
        return
    template = typer.Typer(add_completion=False)
    template.command("template")(_template)
    command.params.extend(parameter for parameter in get_command(template).params if "--json" in parameter.opts)


def load_command(name: str) -> Any:
    """Import a command and return it for click. Raises InvalidRequest if a package it needs is missing."""
    entry = COMMANDS[name]
    module, _, attribute = entry.target.partition(":")
    try:
        with loading():
            target = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        message = (
            f"the command {name} needs the package {error.name}, which is not installed:"
            " install meterbridge[embedded], or meterbridge[postgres] for PostgreSQL"
        )
        raise InvalidRequest(message) from error
    command = _build(target, name, entry.help)
    command.name = name
    _add_json(command)
    return command


class LazyGroup(TyperGroup):
    """Lists all commands without importing them; imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in with the table's help: enough for `--help` and completion."""
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else TyperCommand(cmd_name, help=entry.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command for a call."""
        self.commands = {name: TyperCommand(name) for name in COMMANDS}  # for "did you mean"
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, stand_in if name is None else load_command(name), rest


app = typer.Typer(
    cls=LazyGroup,
    name="meterbridge",
    help="Turns product usage events into exact, explainable money in the ERP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

        try:
            text = version("meterbridge")
        except PackageNotFoundError:
            text = "(from a source tree)"
        sys.stdout.write(f"meterbridge {text}\n")
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file, or directory of *.yaml. Default: METERBRIDGE_CONFIG_FILE, config/meterbridge.yaml."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    _show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    start(Context(config=config, json=as_json))


def _report(error: MeterbridgeError) -> None:
    current = context()
    if current.json:
        from cli.output import to_json  # noqa: PLC0415

        problems = error.problems if isinstance(error, ConfigError) else []
        data = {"error": type(error).__name__, "message": str(error), "problems": problems}
        sys.stderr.write(to_json(data) + "\n")
    elif isinstance(error, ConfigError):
        count = len(error.problems)
        lines = "".join(f"  {text}\n" for text in error.problems)
        sys.stderr.write(f"error: the configuration has {count} problem{'s' * (count != 1)}:\n{lines}")
    else:
        sys.stderr.write(f"error: {error}\n")


def main() -> None:
    """Run the command line. Errors of `core.errors`, and files that cannot be used, end without a traceback.

    Any other error has one, and an exit code of its own: a supervisor starts the command again, as after a crash.
    """
    try:
        app()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # the engine's panics are no `Exception`
        known = _known(error)
        if known is None:
            traceback.print_exception(error)
            sys.exit(CRASHED)
        _report(known)
        sys.exit(known.exit_code)


def _known(error: BaseException) -> MeterbridgeError | None:
    """Return what to tell of an error that people can do something about; None for all others."""
    if isinstance(error, MeterbridgeError):
        return error
    if isinstance(error, OSError) and error.filename is not None:
        return _unusable(error)
    if "sqlalchemy" in sys.modules:
        from sinks.ledger.database import unreachable  # noqa: PLC0415  # only what was imported can have raised it

        if unreachable(error):
            return Unreachable(
                f"the ledger database does not answer: {getattr(error, 'orig', error)}. Start it, or correct"
                " METERBRIDGE_LEDGER__URL; if it is locked, another process has been writing for long"
            )
    return None


def _unusable(error: OSError) -> FatalError:
    """Return the error for a file or directory that is missing, full, or not ours."""
    return FatalError(
        f"{error.filename}: {error.strerror}: check that the path is right (METERBRIDGE_STATE_DIR and the other "
        f"paths of the settings), that there is room, and that this user may read and write there"
    )


if __name__ == "__main__":
    main()
