"""What a command prints: one JSON document, or tables for people; errors and exit codes in one place."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from novad.errors import NovadError, exit_code

__all__ = ["JSON", "answer", "command", "figure", "progress", "table", "tell"]

JSON = typer.Option(False, "--json", help="One JSON document on stdout, nothing else.")
P = ParamSpec("P")
_ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors of a command into a message on stderr (JSON when asked for) and its exit code."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except NovadError as error:
            code = exit_code(error)
            if kwargs.get("as_json"):
                print(json.dumps({"error": str(error), "kind": type(error).__name__, "code": code}))
            else:
                _ERRORS.print("[red]novad:[/red]", end=" ")
                _ERRORS.print(str(error), markup=False)
            raise typer.Exit(code) from None
        except KeyboardInterrupt:
            tell("stopped")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None

    return guarded


def answer(document: Any, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print ``document`` as JSON, or let ``show`` draw it."""
    if as_json:
        print(json.dumps(document, indent=2, ensure_ascii=False, default=str))
    else:
        show(Console(highlight=False))


def tell(message: str) -> None:
    """A line for people, on stderr."""
    _ERRORS.print(message, markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; None shows as a dash."""
    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*["-" if value is None else str(value) for value in row])
    return drawn


def figure(value: float | None) -> str | None:
    """A share or score with three decimals."""
    return None if value is None else f"{value:.3f}"


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr when it is a terminal; yields what to call after each step."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=_ERRORS,
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        job = bar.add_task(description, total=total)
        yield lambda: bar.advance(job)
