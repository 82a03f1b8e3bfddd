"""What a command prints for people: tables, figures, progress; or its JSON document instead."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from novad.cli.outcome import document

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from novad.config import Workspace

__all__ = ["JSON", "answer", "figure", "progress", "table", "where_to_look"]

JSON = typer.Option(False, "--json", help="One JSON document on stdout, nothing else.")


def answer(content: Any, as_json: bool, show: "Callable[[Console], None]") -> None:
    """Print ``content`` as JSON, or let ``show`` draw it."""
    if as_json:
        document(content)
        return
    from rich.console import Console

    show(Console(highlight=False, markup=False, emoji=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> "Table":
    """A plain table; None shows as a dash."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title), title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        # Text, because names of images may hold square brackets, which are rich's markup.
        drawn.add_row(*[Text("-" if value is None else str(value)) for value in row])
    return drawn


def figure(value: float | None) -> str | None:
    """A share or score with three decimals."""
    return None if value is None else f"{value:.3f}"


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr when it is a terminal; into a file go the names of the work's parts.

    Yields:
        What to call after each step, with ``description=`` where the work has a new name.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    counted = [MofNCompleteColumn()] if total else []
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *counted,
        Elapsed(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        job = bar.add_task(description, total=total)

        def step(advance: float = 1, **changes: Any) -> None:
            bar.update(job, advance=advance, **changes)
            if bar.disable and "description" in changes:
                print(changes["description"], file=sys.stderr, flush=True)

        yield step


def where_to_look(workspace: "Workspace", lines: Sequence[str] = ()) -> str:
    """What to open next: runs and models, and the pictures and data report of lines."""
    from novad.tracking.store import locate

    store = locate(workspace)
    text = f"MLflow:    {store.uri if store.served else f'mlflow ui --backend-store-uri {store.uri}'}"
    if lines:
        some = lines[0] if len(lines) == 1 else "LINE"
        text += f"\nHeatmaps:  {workspace.artifacts(some, 'evaluate') / 'heatmaps'}"
        text += f"\nData Docs: {workspace.artifacts(some, 'validate') / 'docs' / 'index.html'}"
    return text
