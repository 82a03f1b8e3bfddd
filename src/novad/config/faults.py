"""What pydantic finds wrong with settings or tables, in words for the person who wrote them."""

from typing import NamedTuple

from pydantic import ValidationError

from novad.errors import ConfigError

__all__ = ["Fault", "faults", "wrong_option"]


class Fault(NamedTuple):
    """One thing that is wrong: the names that lead to the value, outermost first, and why."""

    where: tuple[str, ...]
    why: str


def faults(error: ValidationError) -> list[Fault]:
    """Everything that is wrong, in the order of the fields."""
    found = error.errors(include_url=False, include_input=False)
    # pydantic puts this before what a validator of ours says.
    return [Fault(tuple(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in found]


def wrong_option(error: ValidationError) -> ConfigError:
    """The first thing that is wrong, by the option of a command that set it."""
    first = faults(error)[0]
    return ConfigError(f"--{first.where[0].replace('_', '-')}: {first.why}")
