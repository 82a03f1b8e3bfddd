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


POOLED, SHALLOW = Layout(40, fine_stem=False), Layout(blocks=(1, 2, 2))
DEFAULT = Recipe("fine-deep", labels=0.0)
COMPARED = (
    Recipe("labels", distillation=0.0, layout=POOLED),
    Recipe("distillation", labels=0.0, layout=POOLED),
    Recipe("mixture", layout=POOLED),
    Recipe("whitened", whitened=True, layout=POOLED),
    Recipe("wide", layout=Layout(56, fine_stem=False)),
    Recipe("wide-whitened", whitened=True, layout=Layout(56, fine_stem=False)),
    Recipe("fine", labels=0.0, layout=SHALLOW),
    Recipe("fine-whitened", labels=0.0, whitened=True, layout=SHALLOW),
    DEFAULT,
)
