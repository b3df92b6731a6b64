"""The stages of the DVC graph, and the Prefect flows that walk it."""

import os

# A thread that waits for another spins a little, then sleeps. By default (GNU OpenMP) it spins for milliseconds, and on
# a machine with other work it then holds the core that the thread it waits for needs: a training step takes ten times
# as long. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# DVC reports its own use unless a project's settings forbid it, which a project made a moment ago does not yet.
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
