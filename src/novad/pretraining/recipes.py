"""What a student learns from: labels of the formula classes, a teacher's features, or both."""

from dataclasses import dataclass

from novad.vision.bcos_network import WIDTH

__all__ = ["COMPARED", "DEFAULT", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Targets and width of one student.

    Attributes:
        name: of the student's file.
        labels: weight of the classes' cross-entropy.
        distillation: weight of the teacher's features.
        whitened: the teacher's features are decorrelated, so that its quiet directions count as much.
        width: channels of the student's first stage.
    """

    name: str
    labels: float = 1.0
    distillation: float = 3.0
    whitened: bool = False
    width: int = WIDTH


DEFAULT = Recipe("mixture")
COMPARED = (
    Recipe("labels", distillation=0.0),
    Recipe("distillation", labels=0.0),
    DEFAULT,
    Recipe("whitened", whitened=True),
    Recipe("wide", width=56),
    Recipe("wide-whitened", whitened=True, width=56),
)
