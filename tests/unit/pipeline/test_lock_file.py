"""requirements.lock pins what pyproject.toml asks for, and nothing of the machine that wrote it."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fake_line import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
ASKED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
PINNED = re.compile(r"^([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


@pytest.mark.parametrize("asked", ASKED)
def test_the_lock_holds_a_version_that_was_asked_for(asked: str) -> None:
    wanted = Requirement(asked)
    versions = [
        version
        for name, version in PINNED.findall(LOCK)
        if canonicalize_name(name) == canonicalize_name(wanted.name)
    ]
    assert versions
    assert all(version in wanted.specifier for version in versions)


def test_every_pinned_version_has_a_digest_and_no_address() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > len(ASKED)
    for entry in entries:
        assert PINNED.match(entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    assert not re.search(r"://|@ |file:|^-|index-url|find-links", LOCK, re.MULTILINE)
