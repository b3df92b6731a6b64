"""What `test_launch.py` runs in two processes: the second does as it is told, the first waits until it is ended.

python -m tests.pipeline.launched FOLDER HOW
"""

import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    folder, how = Path(sys.argv[1]), sys.argv[2]
    (folder / f"{os.environ['RANK']}.partial").write_text(str(os.getpid()))
    (folder / f"{os.environ['RANK']}.partial").replace(folder / os.environ["RANK"])
    if how == "fine":
        sys.exit()
    while not (folder / "0").exists():
        time.sleep(0.01)
    if os.environ["RANK"] == "1":
        if how == "mistaken":
            print("test: error: `batch` is wrong", file=sys.stderr)
            sys.exit(2)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
