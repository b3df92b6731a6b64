import os

# Networks in tests are so small that a second thread costs more than it brings. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
