"""The one family of errors; each says what happened, where, and what to do."""

__all__ = [
    "CalibrationError",
    "ConfigError",
    "ImageError",
    "IntegrityError",
    "LineBusyError",
    "NovadError",
    "RefusedError",
    "ServiceError",
    "exit_code",
]


class NovadError(Exception):
    """Root of every error that a user can cause or mend."""

    code = 2


class ConfigError(NovadError):
    """A setting, argument or file of settings is wrong; the message names file and key."""


class ImageError(NovadError):
    """An image cannot be used; the message names it."""


class CalibrationError(NovadError):
    """Scores cannot be calibrated: too few, empty or non-finite."""


class RefusedError(NovadError):
    """A gate or a validation said no; nothing was changed."""

    code = 1


class LineBusyError(RefusedError):
    """Another process is working on the same product line."""


class IntegrityError(RefusedError):
    """A digest does not match: the file is not the one that was recorded."""


class ServiceError(NovadError):
    """An outside service (MLflow, Prefect, DVC remote) failed or cannot be reached."""

    code = 3


def exit_code(error: BaseException) -> int:
    """Exit status of a command that ends with ``error``: 1 refused, 2 wrong use, 3 service."""
    return error.code if isinstance(error, NovadError) else 2
