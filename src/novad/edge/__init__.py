"""Edge bundles: a folder that scores without MLflow, Prefect or DVC, and the export that makes one."""
