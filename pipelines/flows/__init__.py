"""Prefect: time, retries, and what is seen of a run. The only package that imports prefect.

Prefect and DVC read these switches when they are imported, and so do the processes that a flow starts.
"""

import os

for _name, _value in {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)
