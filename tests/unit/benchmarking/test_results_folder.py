"""One benchmark has a folder of results at a time; what it leaves there is its own."""

from pathlib import Path

import pytest

from novad.benchmarking.report import RESULTS
from novad.benchmarking.results_folder import working_folder
from novad.benchmarking.temporary_line import LINE
from novad.errors import ConfigError, RefusedError
from novad.stages.runner import write_json


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_second_benchmark_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    with working_folder(tmp_path) as work:
        (work / "bank").touch()
        (tmp_path / "bench.md").touch()
        with pytest.raises(ConfigError, match="another benchmark writes here; name another folder by --out"):
            working_folder(tmp_path).__enter__()
        assert {"bench.md", ".work/bank"} <= left(tmp_path)
    assert left(tmp_path) == {"bench.md"}
    with working_folder(tmp_path):
        pass


def test_older_results_go_when_a_run_begins_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in (*RESULTS, "notes.txt", "plots/mine.png"):
        (tmp_path / name).touch()
    with working_folder(tmp_path) as work:
        assert left(tmp_path) == {".lock", "notes.txt", "plots/mine.png"}
        assert list(work.iterdir()) == []


def refused(folder: Path, error: BaseException, report: object = None) -> None:
    """A run that ends with ``error``, after the gate wrote ``report``."""
    with working_folder(folder) as work:
        kept = work / ".novad/refused" / LINE
        if report is not None:
            kept.mkdir(parents=True)
            write_json(kept / "report.json", report)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConfigError("no"), RefusedError("no")])
def test_whatever_ends_a_run_takes_its_working_folder_away(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        refused(tmp_path, error)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_the_gate_names_images_and_keeps_its_report_until_the_next_run(tmp_path: Path) -> None:
    error = {"check": "readable", "severity": "error", "images": ["0.png"] * 12, "message": "fault"}
    mask = {"check": "mask_not_empty", "severity": "mask left out", "images": ["m.png"], "message": "empty"}
    report = {"errors": [error], "left_out": [mask]}
    with pytest.raises(RefusedError) as caught:
        refused(tmp_path, RefusedError("validate: the data gate refused the line"), report)
    kept = tmp_path / "data-gate-refusal"
    assert str(caught.value).splitlines() == [
        "the data gate refuses the images:",
        f"  error readable: {', '.join(['0.png'] * 10)} and 2 more: fault",
        "  mask left out mask_not_empty: m.png: empty",
        f"Report: {kept / 'report.json'}, pages: {kept / 'docs/index.html'}",
    ]
    assert left(tmp_path) == {"data-gate-refusal/report.json"}
    with working_folder(tmp_path):
        assert not kept.exists()
