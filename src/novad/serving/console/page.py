"""The console's page and its few files; they come with novad and load nothing from elsewhere."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response

from novad.serving.request_error import RequestError

__all__ = ["SECURITY_HEADERS", "add_page"]

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/console/``, and lead there from ``/``."""
    folder = Path(__file__).parent / "static"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in _MEDIA_TYPES}

    @app.get("/", include_in_schema=False)
    @app.get("/console", include_in_schema=False)
    async def led() -> Response:
        return RedirectResponse("/console/")

    @app.get("/console/", include_in_schema=False)
    @app.get("/console/{name}", include_in_schema=False)
    async def page(name: str = "index.html") -> Response:
        if name not in files:
            raise RequestError(404, "http_404", "nothing here does that")
        return Response(files[name], media_type=_MEDIA_TYPES[Path(name).suffix])
