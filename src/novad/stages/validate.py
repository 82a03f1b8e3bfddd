"""Stage 1: the images of a line become a manifest, or the line is refused with the reason for each image."""

import shutil
import sys
from pathlib import Path

import pandas as pd

from novad.config import LineSettings, Workspace, line_settings
from novad.errors import RefusedError
from novad.images import assign_sources, assign_splits, build_manifest, discover, write_manifest
from novad.images.leaving_out import curable, without
from novad.images.report import Finding, GateReport
from novad.images.validation import run_gate
from novad.stages.runner import main, stage_output, write_json

__all__ = ["divided", "held_to_gate", "run"]


def run(workspace: Workspace, line: str) -> None:
    """Write ``manifest.parquet``, ``report.json`` and ``docs/`` of the line.

    Raises:
        ConfigError: unknown line, missing folder, or a folder that does not follow its layout.
        RefusedError: the gate found errors; report and docs are kept under ``.novad/refused/LINE``.
    """
    settings = line_settings(workspace.params, line)
    root = workspace.path(settings.data)
    samples = discover(root, settings.layout)
    described = build_manifest(root, samples, settings.validation.max_pixels)
    with stage_output(workspace, line, "validate") as out:
        manifest, report = held_to_gate(described, settings, out / "docs")
        write_json(out / "report.json", report.as_document())
        for finding in report.findings:
            print(f"validate {line}: {finding}", file=sys.stderr)
        if not report.passed:
            raise RefusedError(_refusal(report, _keep(out, workspace.state / "refused" / line)))
        write_manifest(manifest, out / "manifest.parquet")


def held_to_gate(
    described: pd.DataFrame, settings: LineSettings, docs: Path | None
) -> tuple[pd.DataFrame, GateReport]:
    """Divide the images and let the gate judge, again and again where a line leaves out what is wrong.

    Args:
        described: of :func:`build_manifest`.
        settings: of the line.
        docs: see :func:`run_gate`.
    Returns:
        What is left, with ``source`` and ``split``, and the last report.
    """
    left_out: list[Finding] = []
    while True:
        manifest = divided(without(described, left_out) if left_out else described, settings)
        report = run_gate(manifest, settings.validation, docs, left_out)
        found = curable(report, manifest) if settings.validation.leave_out else []
        if not found:
            return manifest, report
        left_out += found


def divided(manifest: pd.DataFrame, settings: LineSettings) -> pd.DataFrame:
    """The manifest with ``source`` and ``split`` of every image, by the settings of its line."""
    gate = settings.validation
    source = assign_sources(manifest, settings.seed, gate.near_duplicate_bits)
    whole = manifest.assign(source=source)
    split = assign_splits(
        whole, gate.calibration_share, gate.tuning_share, settings.seed, gate.near_duplicate_bits
    )
    return whole.assign(split=split)


def _keep(out: Path, folder: Path) -> Path:
    """Save the report of a refused line: DVC removes the outputs of a stage that fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(out, folder)
    folder.chmod(0o755)
    return folder


def _refusal(report: GateReport, kept: Path) -> str:
    names = ", ".join(dict.fromkeys(finding.check for finding in report.errors))
    return (
        f"the data gate refused the line: {len(report.errors)} errors ({names}); nothing was registered. "
        f"Report: {kept / 'report.json'}, pages: {kept / 'docs' / 'index.html'}"
    )


if __name__ == "__main__":
    main(run, "validate")
