"""The service: HTTP around the engine, in several worker processes."""

import os

# A worker computes on one thread. NumPy's BLAS, which multiplies the item table, reads this when it
# is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
