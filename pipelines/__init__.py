"""The stages of the DVC graph, and the Prefect flows that walk it."""

import os

# Waiting threads sleep instead of spinning. On a machine with other work, spinning threads hold the cores that the
# thread they wait for needs, and a training step can take ten times as long. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
