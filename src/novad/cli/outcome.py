"""How a command ends: one JSON document or text, a message for every error, the exit code; in one place."""

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper
from typing import Any, TextIO

import typer

from novad.cli.interrupt import INTERRUPTED, stops_children
from novad.errors import NovadError, RefusedError, exit_code

__all__ = ["DataRefusedError", "conclude", "document", "tell"]

_stdout: list[TextIO] = []


class DataRefusedError(RefusedError):
    """Images that the gate refused; ``details`` join the message in the JSON document."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


def conclude(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 done, 1 refused, 2 wrong use, 3 service, 130 stopped."""
    as_json = "--json" in arguments
    _print_any_name()

    def stopped() -> None:
        _fail("stopped", "Interrupted", INTERRUPTED, as_json)

    try:
        with stops_children(stopped), _documents_only(as_json):
            status = app(list(arguments), prog_name="novad", standalone_mode=False)
            sys.stdout.flush()
        status = status if isinstance(status, int) else 0
        if status == INTERRUPTED:
            stopped()
        return status
    except (BrokenPipeError, SystemExit) as ended:
        if isinstance(ended, SystemExit) and not isinstance(ended.__context__, BrokenPipeError):
            raise
        # Whoever read the output has seen enough; what is left must not fail at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (KeyboardInterrupt, typer.Abort):
        stopped()
        return INTERRUPTED
    except typer.TyperException as error:
        if not as_json:
            _show_usage(error)
            return 2
        return _fail(error.format_message(), "UsageError", 2, as_json)
    except (NovadError, OSError) as error:
        details = error.details if isinstance(error, DataRefusedError) else {}
        return _fail(str(error), type(error).__name__, exit_code(error), as_json, details)
    except Exception as error:
        traceback.print_exc()
        text = f"this is a fault of novad itself: {type(error).__name__}: {error}"
        return _fail(text, type(error).__name__, exit_code(error), as_json)


def _print_any_name() -> None:
    """A file name that is no text must not fail the command that has judged the file; JSON reads it back."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def document(content: Any) -> None:
    """Print ``content`` as JSON on the process's own standard output."""
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str), file=(_stdout or [sys.stdout])[-1])


def tell(message: str) -> None:
    """A line for people, on stderr."""
    print(message, file=sys.stderr)


@contextmanager
def _documents_only(as_json: bool) -> Iterator[None]:
    """Keep what libraries print off standard output, which then holds one JSON document and nothing else."""
    if not as_json:
        yield
        return
    _stdout.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout.pop().flush()


def _fail(message: str, kind: str, code: int, as_json: bool, details: Mapping[str, Any] | None = None) -> int:
    if as_json:
        document({"error": message, "kind": kind, "code": code, **(details or {})})
    else:
        tell(f"novad: {message}")
    return code


def _show_usage(error: Any) -> None:
    """The usage line of the command, and what is wrong; typer knows both."""
    error.show()
