"""The service: HTTP around the engine, in several worker processes."""

import os

# A worker computes on one thread. NumPy's BLAS and the OpenMP of faiss, which multiply the item
# table, read this on import.
for _library in ("OPENBLAS", "OMP"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
