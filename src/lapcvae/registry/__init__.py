"""MLflow: runs, registered models, the gate between them. The only package that imports mlflow.

MLflow reads these settings when it is imported, so they are made here, before any module of this package can.
"""

import os

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is away is noticed in seconds, not in MLflow's minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Files go through the server. Its links straight into the store have the name by which it knows the store itself,
    # which other machines need not: in compose.yaml, none does.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}

for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
