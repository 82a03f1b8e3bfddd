"""The data gate: Great Expectations over the manifest, findings that name images, Data Docs to keep."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from novad.config import ValidateSettings
from novad.images.checks import CHECKS, Check, gate_frame
from novad.images.datadocs import make_offline, without_markup
from novad.images.report import Finding, GateReport
from novad.images.splits import SPLITS

__all__ = ["Finding", "GateReport", "run_gate"]


def run_gate(
    manifest: pd.DataFrame,
    settings: ValidateSettings,
    docs: Path | None,
    left_out: Sequence[Finding] = (),
) -> GateReport:
    """Hold the manifest to every check and write Data Docs, which open without a network, to ``docs``.

    Args:
        manifest: rows with ``source`` and ``split`` assigned.
        settings: the line's ``validate`` section.
        docs: new folder; the page to open is ``index.html``. None: nobody will read them.
        left_out: what went before, for the report.
    """
    frame = gate_frame(manifest, settings)
    checks = [check for check in CHECKS if not check.switched_off(settings)]
    failing = _expect(frame, checks, settings, docs)
    findings = [
        finding
        for check in checks
        if check.name in failing
        for finding in _findings(check, failing[check.name], settings)
    ]
    report = GateReport(
        errors=tuple(finding for finding in findings if finding.severity == "error"),
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
        counts={"images": len(manifest)}
        | {split: int((manifest["split"] == split).sum()) for split in SPLITS},
        checks=tuple(
            {"check": check.name, "severity": check.severity, "success": check.name not in failing}
            for check in checks
        ),
        left_out=tuple(left_out),
    )
    if docs is not None:
        make_offline(docs, report)
    return report


def _expect(
    frame: pd.DataFrame, checks: list[Check], settings: ValidateSettings, docs: Path | None
) -> dict[str, pd.DataFrame]:
    """Run the checks as one Great Expectations checkpoint: failing rows by the name of the check."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import by releases that report usage
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    # Imported here: it takes seconds, and only this function needs it.
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(name="data-gate")
    for check in checks:
        kind = getattr(gx.expectations, check.expectation)
        level = "critical" if check.severity == "error" else "warning"
        suite.add_expectation(
            kind(
                **check.arguments,
                **check.settings(settings),
                severity=level,
                meta={"check": check.name},
                notes=check.name,
            )
        )
    context.suites.add(suite)
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("images")
    definition = gx.ValidationDefinition(
        name="data-gate", data=asset.add_batch_definition_whole_dataframe("all"), suite=suite
    )
    context.validation_definitions.add(definition)
    checkpoint = gx.Checkpoint(
        name="data-gate",
        validation_definitions=[definition],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["path"]},
    )
    shown = without_markup(frame)
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": shown})
    if docs is not None:
        _write_docs(context, docs)
    (validation,) = outcome.run_results.values()
    return {
        _name(result): frame[_is_failing(shown, result)]
        for result in validation.results
        if not result.success
    }


def _name(result: Any) -> str:
    return str(result.expectation_config.meta["check"])


def _is_failing(shown: pd.DataFrame, result: Any) -> "pd.Series[bool]":
    """Whether a result names a row; it names all of them when it concerns the table as a whole."""
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"{result.expectation_config.type}: {result.exception_info}")
    named = result.result.get("unexpected_index_list")
    if named is None:
        return pd.Series(True, shown.index)
    return shown["path"].isin({item["path"] for item in named})


def _findings(check: Check, rows: pd.DataFrame, settings: ValidateSettings) -> list[Finding]:
    parts = [rows] if check.per_reason is None else [part for _, part in rows.groupby(check.per_reason)]
    return [
        Finding(check.name, check.severity, tuple(part["path"]), check.says(part, settings)) for part in parts
    ]


def _write_docs(context: Any, docs: Path) -> None:
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        site_name="data-gate",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.absolute()),
            },
        },
    )
    context.build_data_docs()
