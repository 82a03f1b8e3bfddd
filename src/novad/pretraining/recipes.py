"""What a student learns from: labels of the formula classes, a teacher's features, or both."""

from dataclasses import dataclass

from novad.vision.bcos_network import SHIPPED, Layout

__all__ = ["COMPARED", "DEFAULT", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Targets and sizes of one student.

    Attributes:
        name: of the student's file.
        labels: weight of the classes' cross-entropy.
        distillation: weight of the teacher's features.
        whitened: the teacher's features are decorrelated, so that its quiet directions count as much.
        layout: sizes of the student.
    """

    name: str
    labels: float = 1.0
    distillation: float = 3.0
    whitened: bool = False
    layout: Layout = SHIPPED


DEFAULT = Recipe("mixture")
FINE = Layout(48, (1, 2, 2), fine_stem=True)
COMPARED = (
    Recipe("labels", distillation=0.0),
    Recipe("distillation", labels=0.0),
    DEFAULT,
    Recipe("whitened", whitened=True),
    Recipe("wide", layout=Layout(56)),
    Recipe("wide-whitened", whitened=True, layout=Layout(56)),
    Recipe("fine", labels=0.0, layout=FINE),
    Recipe("fine-again", labels=0.0, layout=FINE),
    Recipe("fine-whitened", labels=0.0, whitened=True, layout=FINE),
    Recipe("fine-slim", labels=0.0, layout=Layout(40, (1, 2, 2), fine_stem=True)),
    Recipe("fine-deep", labels=0.0, layout=Layout(48, (2, 2, 2), fine_stem=True)),
)
