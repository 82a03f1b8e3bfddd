"""`mlflow/compose.yaml` for machines without Docker: its commands and settings with other addresses."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fake_line import REPOSITORY

__all__ = ["FOLDER", "Translation", "make_secrets", "services"]

FOLDER = REPOSITORY / "mlflow"


def services() -> dict[str, dict[str, Any]]:
    """What the file says of each service, anchors resolved."""
    whole = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
    return dict(whole["services"])


def make_secrets(folder: Path) -> Path:
    """Follow the README's steps in ``folder``; where the passwords lie then."""
    readme = (FOLDER / "README.md").read_text("utf-8")
    [steps] = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    subprocess.run(["bash", "-euc", steps], cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return folder / "secrets"


@dataclass(frozen=True)
class Translation:
    """Where the servers of a test are instead of where the file says."""

    secrets: Path
    postgresql: Path
    """Folder of its socket."""
    s3: str
    mlflow: int
    prefect: int
    scratch: Path

    def __call__(self, text: str) -> str:
        for pattern, replacement in (
            (r"/tmp\b", str(self.scratch)),  # noqa: S108 - of a container
            (r"@(?:postgres|127\.0\.0\.1):5432/(\w+)", rf"@/\1?host={self.postgresql}"),
            (r"http://s3:9000", self.s3),
            (r"/run/secrets\b", str(self.secrets)),
            (r"0\.0\.0\.0", "127.0.0.1"),
            (r"\b5000\b", str(self.mlflow)),
            (r"\b4200\b", str(self.prefect)),
        ):
            text = re.sub(pattern, replacement, text)
        return text

    def command(self, service: str) -> list[str]:
        return [self(each) for each in services()[service]["command"]]

    def environment(self, service: str) -> dict[str, str]:
        return {name: self(value) for name, value in services()[service]["environment"].items()}
