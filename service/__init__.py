"""The service: HTTP around the engine, in several worker processes."""

import os

# A worker computes on one thread. What multiplies the item table, NumPy's BLAS and the OpenMP of
# faiss, reads this when it is imported.
for _library in ("OPENBLAS", "OMP"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
