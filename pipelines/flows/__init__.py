"""Prefect: time, retries, and what is seen of a run. The only package that imports prefect.

Prefect reads these switches when it is imported, and so do the processes that a flow starts.
"""

import getpass
import os

for _name, _value in {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

# DVC asks for the user's name, which a container run with a number of its own does not know.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ["LOGNAME"] = str(os.getuid())
