"""The command tree, and what happens to exceptions: one line on stderr and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import cast

import typer

from titer.cli import attack, clinic, models, train, version
from titer.cli.exit_codes import ExitCode, OtherRankFailedError, Reporting, WrongUsageError, exit_code

# typer carries its own copy of click from 0.20 on, so the class is taken from what typer exports.
_ParserError = cast("type[Exception]", typer.BadParameter.__mro__[1])

_app = typer.Typer(
    name="titer",
    help="Measures how much attack a language model withstands.",
    epilog="Exit codes: 0 goal reached, 1 not reached, 2 wrong usage, 3 failure, 4 inconclusive, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
)
_app.add_typer(attack.commands, name="attack")
_app.add_typer(clinic.commands, name="clinic")
_app.add_typer(models.commands, name="models")
_app.command("train", cls=train.TrainCommand)(train.train)
_app.command("version")(version.version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line tool.

    Parameters
    ----------
    arguments : list of str, optional
        What follows the program's name; by default those of the process.

    Returns
    -------
    int
        The exit code.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    reporting = Reporting()
    try:
        code = _app(args=words, prog_name="titer", standalone_mode=False, obj=reporting)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except _ParserError as error:
        if message := _parser_message(error):  # none where no arguments were given, which prints the help
            _say(f"{message} (see titer --help)")
        return ExitCode.WRONG_USAGE
    except OtherRankFailedError as error:
        return exit_code(error)
    except WrongUsageError as error:
        _report(error.__cause__ or error, reporting)
        return exit_code(error)
    except Exception as error:
        _report(error, reporting)
        return exit_code(error)
    return code if isinstance(code, int) else ExitCode.REACHED


def _report(error: BaseException, reporting: Reporting) -> None:
    if reporting.traceback:
        traceback.print_exception(error)
    _say(_message(error))


def _message(error: BaseException) -> str:
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    if isinstance(error, OSError) and error.filename is not None:
        text += f" ({error.filename})"
    return text or type(error).__name__


def _parser_message(error: Exception) -> str:
    format_message = getattr(error, "format_message", error.__str__)
    return str(format_message())


def _say(message: str) -> None:
    print("titer:", " ".join(message.split()), file=sys.stderr)
