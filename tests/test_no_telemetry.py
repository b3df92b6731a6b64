"""No tool sends anything to anyone, in a shell that has none of the switches set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OFF = {
    "dvc": "from dvc.analytics import is_enabled; print(not is_enabled())",
    "mlflow": (
        "import lapcvae.registry.store\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    ),
    "prefect": (
        "import pipelines.flows.run; from prefect.settings import get_current_settings as settings\n"
        "from prefect._internal.analytics.enabled import is_telemetry_enabled\n"
        "print(not is_telemetry_enabled() and not settings().server.analytics_enabled)"
    ),
    "prefect's own command": (
        "from prefect.settings import get_current_settings as settings; print(not settings().server.analytics_enabled)"
    ),
}


@pytest.mark.parametrize("tool", OFF)
def test_tool_is_quiet(tool: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # no CI variable either: it silences some
    command = [sys.executable, "-c", OFF[tool]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
