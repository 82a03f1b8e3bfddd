"""DVC's file about the images of a line, as it may come out of an editor or a merge."""

from pathlib import Path

import pytest

from novad.errors import ConfigError
from novad.pipeline.tracked_data import data_digest

WHOLE = "outs:\n- md5: 0f.dir\n  hash: md5\n  path: metal\n"
CONFLICT = f"<<<<<<< HEAD\n{WHOLE}=======\n{WHOLE}>>>>>>> theirs\n"


def test_the_digest_is_read_as_dvc_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "metal.dvc"
    path.write_text(WHOLE)
    assert (data_digest(path), data_digest(None)) == ("0f.dir", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "outs: names no digest"),
        ("outs:\n", "outs: names no digest"),
        ("outs: []\n", "outs: names no digest"),
        ("outs: [metal]\n", "outs: names no digest"),
        ("outs:\n- path: metal\n", "outs: names no digest"),
        (CONFLICT, "not valid YAML"),
    ],
)
def test_a_damaged_file_is_refused_by_its_path(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "metal.dvc"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"metal\.dvc: {why}"):
        data_digest(path)
