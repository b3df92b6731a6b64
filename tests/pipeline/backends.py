"""PostgreSQL and an S3 store for tests: real servers, started here and ended here."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def postgres_programs() -> Path | None:
    """Where initdb and postgres are: on the path, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def install_postgres() -> Path | None:
    """Debian's package, where this is a Debian and we are root; None where it cannot be had."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-y", "-q", "postgresql"]):
            subprocess.run(command, env=quiet, capture_output=True, check=False)
    return postgres_programs()


@contextmanager
def postgres(folder: Path, programs: Path) -> Iterator[str]:
    """A new cluster in `folder`; yields its address without a database, such as u@127.0.0.1:5433."""
    user, port = "lapcvae", free_port()
    prefix: list[str] = []
    folder.mkdir(parents=True)
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("nobody")
        for path in (folder, *folder.parents):
            if path == Path("/tmp") or path.owner() != pwd.getpwuid(0).pw_name:
                break
            path.chmod(path.stat().st_mode | 0o011)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        prefix = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    data = folder / "data"
    made = [*prefix, str(programs / "initdb"), "-D", str(data), "-U", user, "--auth=trust", "-N", "-E", "UTF8"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder)
    served = ["-D", str(data), "-p", str(port), "-c", f"unix_socket_directories={folder}", "-F"]
    with (folder / "log").open("w") as log:  # what it said is wanted when it ends amid the tests
        process = subprocess.Popen([*prefix, str(programs / "postgres"), *served], stderr=log, cwd=folder)
    try:
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False).returncode:
            assert process.poll() is None, "PostgreSQL ended by itself"
            time.sleep(0.1)
        for database in ("mlflow", "prefect"):
            command = ["createdb", "-h", "127.0.0.1", "-p", str(port), "-U", user, database]
            subprocess.run([str(programs / command[0]), *command[1:]], check=True)
        yield f"{user}@127.0.0.1:{port}"
    finally:
        if (code := process.poll()) is not None:
            pytest.fail(f"PostgreSQL ended amid the tests, code {code}: {(folder / 'log').read_text()[-2000:]}")
        process.send_signal(signal.SIGINT)  # its fast way: SIGTERM waits for clients, and MLflow keeps connections
        process.wait(60)


@contextmanager
def s3() -> Iterator[str]:
    """An S3 server (moto) with the buckets `mlflow` and `dvc`; yields its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(address, trust_env=False)
                break
            except httpx.HTTPError:
                assert process.poll() is None, "moto ended by itself"
                time.sleep(0.1)
        for bucket in ("mlflow", "dvc"):
            httpx.put(f"{address}/{bucket}", trust_env=False).raise_for_status()
        yield address
    finally:
        process.terminate()
        process.wait(60)
