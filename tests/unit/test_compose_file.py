"""`mlflow/compose.yaml` cannot be started where the tests run; what it promises can be read from it."""

import inspect
import re
from pathlib import Path
from subprocess import CalledProcessError

import mlflow.environment_variables
import prefect.settings
import pytest
import typer
import yaml
from botocore import configprovider, utils

from compose_file import FOLDER, make_secrets, services
from fake_line import REPOSITORY
from novad.cli.app import app

WHOLE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")
README = (FOLDER / "README.md").read_text("utf-8")
SERVICES = services()
OURS = [name for name, told in SERVICES.items() if told["image"] == "novad:local"]
NAMES = sorted({name for told in SERVICES.values() for name in told["environment"]})
# By the documentation of these images, libpq and Python; they have no list that could be read here.
OF_OTHERS = {
    "HOME",
    "MINIO_ROOT_PASSWORD_FILE",
    "MINIO_ROOT_USER",
    "MINIO_UPDATE",
    "PGCONNECT_TIMEOUT",
    "PGDATA",
    "PGPASSFILE",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD_FILE",
    "POSTGRES_USER",
    "PYTHONPATH",
    "USER",
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_no_secrets_in_sight_and_only_loopback_ports(name: str) -> None:
    told = SERVICES[name]
    assert told["user"].startswith("${NOVAD_UID:?")
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["restart"] == ("on-failure" if name == "bucket" else "unless-stopped")
    assert all(port.startswith("127.0.0.1:") for port in told.get("ports", []))
    assert ("healthcheck" in told) != (name == "bucket")
    assert set(told["secrets"]) <= set(WHOLE["secrets"])
    for variable, value in told["environment"].items():
        assert isinstance(value, str), variable
        assert "PASSWORD" not in variable or variable.endswith("_FILE")
        assert not re.search(r"://[^/@]*:[^/@]*@", value), variable
        if value.startswith("/run/secrets/"):
            assert value.rpartition("/")[2] in WHOLE["secrets"]
    for mounted in told.get("volumes", []):
        assert mounted["bind"] == {"create_host_path": False}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_and_name_no_registry(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert tag not in {"", "latest"}
    assert not re.search(r"[.:]", image.partition("/")[0])
    assert ("build" in SERVICES[name]) == (name in OURS)


def test_the_image_is_built_from_what_is_here() -> None:
    build = WHOLE["x-novad"]["build"]
    assert (FOLDER / build["context"]).resolve() == REPOSITORY
    steps = build["dockerfile_inline"].splitlines()
    copied = [name for step in steps if step.startswith("COPY") for name in step.split()[1:-1]]
    assert {"requirements.lock", "pyproject.toml", "src"} <= set(copied)
    assert all((REPOSITORY / name).exists() for name in copied)
    assert "--no-deps --require-hashes -r requirements.lock" in build["dockerfile_inline"]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_one_that_somebody_reads(name: str) -> None:
    assert name in OF_OTHERS or _known(name)


def _known(name: str) -> bool:
    match name.partition("_")[0]:
        case "AWS":
            return f"'{name}'" in inspect.getsource(configprovider) + inspect.getsource(utils)
        case "MLFLOW":
            return hasattr(mlflow.environment_variables, name)
        case "NOVAD":
            return any(f'"{name}"' in path.read_text() for path in REPOSITORY.glob("src/novad/**/*.py"))
        case "PREFECT":
            return hasattr(prefect.settings, name)
    return f"export {name} =" in MAKEFILE


@pytest.mark.parametrize("name", OURS)
def test_telemetry_is_off_as_in_the_makefile(name: str) -> None:
    quiet = dict(re.findall(r"^export (\w+) = (1|true|false)$", MAKEFILE, re.MULTILINE))
    quiet.pop("PIP_DISABLE_PIP_VERSION_CHECK")
    told = SERVICES[name]["environment"]
    assert len(quiet) == 5
    for variable, value in quiet.items():
        assert told[variable] == ("false" if value == "false" else "true")


def test_no_web_page_but_its_own_commands_prefect() -> None:
    told, [port] = SERVICES["prefect"]["environment"], SERVICES["prefect"]["ports"]
    assert told["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    own = [f"http://{host}:{port.rpartition(':')[2]}" for host in ("127.0.0.1", "localhost")]
    assert told["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",") == own


def test_the_readme_tells_each_address_and_password_file() -> None:
    rows = set(
        re.findall(r"`(\w+)`", "".join(line for line in README.splitlines() if line.startswith("| `")))
    )
    wanted = {name for name in NAMES if name.endswith(("_URI", "_URL")) and "_UI_" not in name}
    assert wanted | {"PGPASSFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_RETRY_MODE"} <= rows


def test_the_readme_makes_the_secrets_once_for_their_owner_alone(tmp_path: Path) -> None:
    folder = make_secrets(tmp_path)
    assert {path.name for path in folder.iterdir()} == set(WHOLE["secrets"])
    assert all(told["file"] == f"./secrets/{name}" for name, told in WHOLE["secrets"].items())
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    passwords = [(folder / f"{server}-password").read_text() for server in ("postgres", "s3")]
    assert len(set(passwords)) == 2
    assert (folder / "pgpass").read_text() == f"*:*:*:novad:{passwords[0]}\n"
    assert passwords[1] in (folder / "s3-credentials").read_text()
    with pytest.raises(CalledProcessError):
        make_secrets(tmp_path)
    assert (folder / "s3-password").read_text() == passwords[1]


def test_the_worker_and_the_scoring_service_are_those_of_novad_up() -> None:
    program, command, *options = SERVICES["plant"]["command"]
    assert program == "novad"
    context = typer.main.get_command(app).commands[command].make_context(command, options)  # type: ignore
    assert context.params["serve_port"] == 8600
    assert SERVICES["plant"]["healthcheck"]["test"][-1] == "http://127.0.0.1:8600/healthz"
