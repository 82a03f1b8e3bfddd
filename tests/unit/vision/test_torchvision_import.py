"""torchvision is imported without torch's compiler, and its operators still ask the real one."""

import subprocess
import sys
from pathlib import Path

LATER = """
import sys
from novad.vision.bcos_network import build_bcos_network
build_bcos_network()
assert "torchvision.ops.roi_align" in sys.modules
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))]
from torchvision.ops.roi_align import is_compile_supported
told = is_compile_supported("cpu")
from torch._dynamo.utils import is_compile_supported as real
assert told == real("cpu") and is_compile_supported is not real
"""
ASKS_FOR_MORE = """
import sys
sys.path.insert(0, sys.argv[1])
from novad.vision.torchvision_import import import_torchvision
import_torchvision()
assert not {"torchvision", "torch._dynamo", "torch._dynamo.utils"} & set(sys.modules)
"""


def test_the_compiler_is_imported_once_it_is_asked() -> None:
    subprocess.run([sys.executable, "-c", LATER], check=True, timeout=120)


def test_a_torchvision_that_asks_the_compiler_for_more_is_left_to_a_plain_import(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torch._dynamo.utils import more\n")
    subprocess.run([sys.executable, "-c", ASKS_FOR_MORE, str(tmp_path)], check=True, timeout=120)
