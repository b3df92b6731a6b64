"""What `test_launch.py` runs in two processes: the second does as it is told, and the first waits for it."""

import os
import signal
import sys
import time

if __name__ == "__main__":
    print(f"{os.environ['RANK']} has begun", flush=True)
    if sys.argv[1] == "fine":
        sys.exit()
    if os.environ["RANK"] == "1":
        if sys.argv[1] == "mistaken":
            print("test: error: `batch` is wrong", file=sys.stderr)
            sys.exit(2)
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
