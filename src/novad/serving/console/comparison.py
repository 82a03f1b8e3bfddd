"""Two versions on the same test images, as the console asks for it."""

from novad.config import Workspace
from novad.serving.console.answers import Comparison, Difference
from novad.tracking import PublishedRun
from novad.tracking.comparison import compared

__all__ = ["comparison"]


def comparison(workspace: Workspace, line: str, left: int, right: int, kind: str) -> Comparison:
    """The figures of ``right`` less those of ``left``, with paired bootstrap intervals.

    Args:
        kind: familiarity, novelty or hybrid.
    Raises:
        ConfigError: no such version.
        IntegrityError: a file is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    first, second = (PublishedRun.open(workspace, line, version) for version in (left, right))
    images, found = compared(first, second, kind)
    differences = {name: Difference(**told) for name, told in found.items()}
    return Comparison(line=line, left=left, right=right, images=images, differences=differences)
