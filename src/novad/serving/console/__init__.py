"""The review console: a web page, and the routes that it reads and decides by."""

from typing import TYPE_CHECKING

from fastapi import FastAPI

from novad.serving.console.deciding import add_deciding
from novad.serving.console.page import SECURITY_HEADERS, add_page
from novad.serving.console.reading import add_reading
from novad.serving.console.viewing import Viewer, add_viewing

if TYPE_CHECKING:
    from novad.serving.service import Service

__all__ = ["SECURITY_HEADERS", "add_console"]


def add_console(app: FastAPI, service: "Service") -> None:
    """Let ``app`` show the console at ``/console/`` and answer its questions."""
    add_page(app)
    add_reading(app, service)
    add_viewing(app, service, Viewer(service.workspace, service.images))
    add_deciding(app, service)
