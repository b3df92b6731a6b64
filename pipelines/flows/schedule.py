"""Everything a schedule needs on one machine: server, work pool, deployment, worker; they end with this command.

    python -m pipelines.flows.schedule

A server that answers already is used and left running.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from lapcvae.errors import LapcvaeError, PipelineError

POOL = "lapcvae"
_START_S, _STOP_S, _LOOK_S = 120.0, 20.0, 1.0


def main() -> None:
    """Start what is missing, say how to see and stop it, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description="Prefect server, work pool, worker and schedule on this machine")
    parser.add_argument("--port", type=int, default=4200, help="of Prefect's pages")
    try:
        run(parser.parse_args().port)
    except LapcvaeError as error:
        print(f"schedule: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def run(port: int) -> None:
    """As `main`. Raises `PipelineError` where a part does not come up."""
    address = os.environ.get("PREFECT_API_URL") or f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_API_URL": address,
        "PREFECT_SERVER_UI_API_URL": address,
        "LAPCVAE_PROJECT": str(Path.cwd()),
        "LAPCVAE_POOL": POOL,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
    }
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts jobs in the background with the first one ignored
        signal.signal(number, _interrupt)
    serve = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        if not _answers(address):
            started.append(_start(serve, environment))
            _wait(address, started[0])
        _do(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
        _do(["--no-prompt", "deploy", "--all"], environment)
        worker = _start(["worker", "start", "--pool", POOL, "--limit", "1"], environment)
        started.append(worker)
        pages = address.removesuffix("/api")
        print(f"schedule: on; see {pages}/deployments, stop with Ctrl-C", flush=True)
        print(f"  one run now   PREFECT_API_URL={address} prefect deployment run retrain/weekly", flush=True)
        print("  pause         on the deployment's page; the time is in prefect.yaml", flush=True)
        while worker.poll() is None:
            time.sleep(_LOOK_S)
            if started[0] is not worker and started[0].poll() is not None:
                print("schedule: Prefect's server ended by itself; it is started again", flush=True)
                started[0] = _start(serve, environment)
                _wait(address, started[0])
        raise PipelineError("Prefect's worker ended by itself; its last lines are above", 1)
    except KeyboardInterrupt:
        print("schedule: off")
    finally:
        for process in reversed(started):
            _stop(process)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # In a group of its own, so that Ctrl-C comes to it from us, in order: the worker before its server.
    return subprocess.Popen([sys.executable, "-m", "prefect", *arguments], env=environment, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group; a retraining that a worker runs ends with it, and the next one finishes it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _do(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PipelineError(f"`prefect {' '.join(arguments)}` failed: {(done.stdout + done.stderr)[-2000:]}", 1)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=3, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while not _answers(address):
        if server.poll() is not None or time.monotonic() > until:
            raise PipelineError(f"Prefect's server does not come up at {address}; its last lines are above", 1)
        time.sleep(0.3)


if __name__ == "__main__":
    main()
