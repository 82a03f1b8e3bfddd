"""A request that is not answered with a decision: status, code and words, and never a piece of the input."""

from novad.errors import NovadError

__all__ = ["RequestError"]


class RequestError(NovadError):
    """Why the service says no.

    Args:
        status: HTTP status.
        reason: code for machines, snake case, stable.
        message: for people; must quote nothing that was sent.
        image: index of the image within the request, when it is about one.
    """

    def __init__(self, status: int, reason: str, message: str, image: int | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.image = status, reason, image
