"""Import of torchvision without torch's compiler, which takes most of its time and compiles nothing here."""

import sys
from types import ModuleType
from typing import Any

__all__ = ["import_torchvision"]

_COMPILER, _UTILITIES = "torch._dynamo", "torch._dynamo.utils"


def import_torchvision() -> None:
    """Import torchvision; the compiler that one of its operators asks for is imported once that is called.

    ``torchvision.ops.roi_align`` takes one function of ``torch._dynamo.utils``: nearly half of the start of
    every process that loads the bundled network. Nothing of novad calls the operator.
    """
    if "torchvision" in sys.modules or _COMPILER in sys.modules:
        return
    stand_ins = {_COMPILER: ModuleType(_COMPILER), _UTILITIES: ModuleType(_UTILITIES)}
    vars(stand_ins[_UTILITIES])["is_compile_supported"] = _is_compile_supported
    sys.modules.update(stand_ins)
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pass  # It asks the compiler for more; whoever needs torchvision imports both.
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _is_compile_supported(device_type: Any) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)
