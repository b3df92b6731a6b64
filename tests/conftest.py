import os

# Networks in tests are so small that a second thread costs more than it brings. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Projects made for a test have no settings that would keep DVC from reporting its use.
os.environ["DVC_NO_ANALYTICS"] = "1"
