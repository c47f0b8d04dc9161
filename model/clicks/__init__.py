"""Click files: reading every format, the histories in memory, writing and downloading."""
