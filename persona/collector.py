"""Makes Python's garbage collector run seldom, for programs whose objects form no circles.

A request is many small objects, and each collection visits all of them.
"""

import gc


def collect_seldom(young_objects: int) -> None:
    """Hides all present objects from the collector, which then runs after so many new ones."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(young_objects, *gc.get_threshold()[1:])
