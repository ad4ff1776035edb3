"""Exit codes, and what separates wrong usage from failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import typer


class ExitCode(IntEnum):
    """What the tool returns to the shell."""

    REACHED = 0
    NOT_REACHED = 1
    WRONG_USAGE = 2
    FAILURE = 3
    INCONCLUSIVE = 4
    INTERRUPTED = 130


class WrongUsageError(Exception):
    """The user has to change the command. Raised from the exception that says what is wrong, or with a message."""


class OtherRankFailedError(Exception):
    """Another of the processes that torchrun started has failed, and says why; this one ends with the same code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"another rank failed with exit code {code}")
        self.code = code


def exit_code(error: BaseException) -> ExitCode:
    """Return the code that a command ends with when this error ends it."""
    if isinstance(error, OtherRankFailedError):
        return ExitCode(error.code)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.WRONG_USAGE if isinstance(error, WrongUsageError) else ExitCode.FAILURE


@contextmanager
def wrong_usage(*kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these kinds, which what the user wrote has caused, into :class:`WrongUsageError`."""
    try:
        yield
    except kinds as error:
        raise WrongUsageError(str(error)) from error


@dataclass
class Reporting:
    """How errors of the running command are shown."""

    traceback: bool = False


def _remember(context: typer.Context, value: bool) -> bool:
    context.obj.traceback = value
    return value


Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.", callback=_remember)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for machines.")]
