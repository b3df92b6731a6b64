"""A stage in several processes of this machine that train together: what torchrun does, its failures told in a line."""

from __future__ import annotations

import logging
import os
import signal
import sys

from lapcvae.errors import ConfigError

PROCESSES = "LAPCVAE_PROCESSES"


def join_processes(module: str) -> None:
    """Run this stage in several processes where the environment asks for them, and end with their exit code."""
    try:
        count = wanted()
    except ConfigError as error:
        print(f"{module.rpartition('.')[2]}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if count > 1:
        sys.exit(launch(module, sys.argv[1:], count))


def wanted() -> int:
    """How many processes the environment asks for; 1 where it does not, or where this is one of them already.

    An environment variable and no parameter: it changes who works, not what comes out, so DVC need not know.
    Raises `ConfigError`.
    """
    said = os.environ.get(PROCESSES, "")
    if not said or "WORLD_SIZE" in os.environ:
        return 1
    if not said.strip().isdecimal() or int(said) < 1:
        raise ConfigError(f"{PROCESSES} is {said!r}; give how many processes are to train together: 1 or more")
    return int(said)


def launch(module: str, arguments: list[str], count: int) -> int:
    """Run `python -m module` in `count` processes; returns the exit code of the one that failed first, or 0.

    A process that was ended by a signal has 128 and its number, as in a shell; so has this one, once all are gone.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))  # else torchrun says 1
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable()  # torchrun's log says at length what the exit codes and the processes' own words say
    try:
        run(parse_args(["--standalone", "--nproc-per-node", str(count), "-m", module, *arguments]))
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        rank, code = min(
            ((rank, failure.exitcode) for rank, failure in failed.failures.items()), key=lambda one: _order(one[1])
        )
        if code > 0:
            return code  # it has said why
        print(
            f"{' '.join([module.rpartition('.')[2], *arguments])}: error: process {rank} of {count} was ended by "
            f"{signal.Signals(-code).name}; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 128 - code
    return 0


def _order(code: int) -> int:
    """A cause before what follows from another's end: a lost connection, and then torchrun's own SIGTERM."""
    return {1: 1, -signal.SIGTERM: 2}.get(code, 0)
