"""Python's cyclic garbage collector, out of the way where it finds nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic collection inside.

    The passes make millions of objects that live on in the stages and refer to each other without cycles; to walk them
    again and again would take a fifth of the time. Reference counts free the rest.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
