"""Telling somebody else's address about an alarm; nothing is sent unless the user named one."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from http.client import HTTPException
from urllib.parse import urlsplit

from novad.errors import ServiceError
from novad.tracking.monitor import Monitored

__all__ = ["post_alarm"]

_SECONDS = 5.0
_PAUSES = (1.0, 2.0)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The alarm goes where the user said, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def post_alarm(address: str, report: Monitored) -> None:
    """POST the report as JSON: three tries of at most five seconds each.

    Args:
        address: http or https.
    Raises:
        ServiceError: it was not taken; the message names the host alone, for addresses hold secrets.
    """
    body = json.dumps(asdict(report)).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310
    opener = urllib.request.build_opener(_NoRedirect)
    for pause in (*_PAUSES, None):
        try:
            with opener.open(request, timeout=_SECONDS):
                return
        except urllib.error.HTTPError as error:
            problem = f"status {error.code}"
            error.close()
        except (OSError, HTTPException, ValueError) as error:
            problem = type(error).__name__ if isinstance(error, ValueError) else str(error)
        if pause is not None:
            time.sleep(pause)
    raise ServiceError(f"the webhook at {urlsplit(address).hostname} did not take the alarm: {problem}")
