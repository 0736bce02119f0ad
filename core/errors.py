"""The one error tree: retryable, rejected, fatal.

Bad *data* never raises inside the dataflow: it becomes a row with a reason code (`core.reasons`). These
errors are for everything else. Messages say what happened, where, and what to do; secrets never appear.
"""

CRASHED = 70  # EX_SOFTWARE
"""Exit code of a process that ended by an error that is not of this tree: a defect, or what nobody thought of."""

# --- the tree ------------------------------------------------------------------------------------------


class MeterbridgeError(Exception):
    """Base of every error Meterbridge raises on purpose."""

    exit_code = 1


class RetryableError(MeterbridgeError):
    """The same call may succeed later; nothing was decided."""

    exit_code = 75  # EX_TEMPFAIL


class RejectedError(MeterbridgeError):
    """The other side understood and said no; repeating the same call is pointless."""


class FatalError(MeterbridgeError):
    """The process has to stop; going on could lose or double something. Starting again will not mend it."""

    exit_code = 3


# --- retryable -----------------------------------------------------------------------------------------


class Unreachable(RetryableError):
    """A server did not answer; the message names the address, the cause and the setting."""


class StopRequested(RetryableError):
    """SIGTERM came while waiting for a server; the epoch is replayed at the next start."""


class ClockSetBack(RetryableError):
    """The machine's clock was set back under a running process; starting again mends it."""


# --- rejected ------------------------------------------------------------------------------------------


class ConfigError(RejectedError):
    """The configuration has errors; `problems` lists all of them."""

    def __init__(self, problems: "list[str]") -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class InvalidRequest(RejectedError):
    """A command was asked for something it cannot do."""


class Disagreement(RejectedError):
    """Two accounts of the same thing differ; the message says which."""


# --- fatal ---------------------------------------------------------------------------------------------


class LockHeld(FatalError):
    """Another process owns the state directory, or a part of it."""


class StreamGap(FatalError):
    """Entries were trimmed from a stream before they were read; the message says how many."""


class StreamBackward(FatalError):
    """A stream's last id is below what was already read, fenced or booked: its tail is gone."""


class StateMismatch(FatalError):
    """Durable state and what is on disk do not belong together; the message names the way out."""


class InvariantViolation(FatalError):
    """Something that must always hold does not; stopping is safer than booking."""
