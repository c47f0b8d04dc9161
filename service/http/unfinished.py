"""An incomplete request, held within limits."""

from service.http.head import Refused, too_large
from service.http.watch import Watch


class Unfinished:
    """The head and the body of one request, as far as they have arrived."""

    def __init__(self, watch: Watch, scope: object, head_before: int) -> None:
        """Starts with a segment.

        Args:
            watch: knows the bytes held by all bodies of a worker.
            scope: of the request, from uvicorn.
            head_before: size of the segment, which may begin with another request.
        """
        self._watch, self.scope = watch, scope
        self.head = bytearray()
        self._head_before = head_before
        self._body_bytes = 0
        self._held_bytes = 0  # bytes of the body; the watch counts them too

    def add_to_head(self, segment: bytes) -> None:
        """Adds bytes of the head.

        Raises:
            Refused: it is too large.
        """
        self.head += segment
        limit = self._watch.settings.max_header_bytes
        if len(self.head) - self._head_before > limit:
            raise too_large(f"more than {limit:,} bytes, the limit")

    def add_to_body(self, size: int, dropped: bool) -> None:
        """Counts bytes of the body; a refused body is `dropped`.

        Raises:
            Refused: this body is too large, or all bodies together are.
        """
        settings = self._watch.settings
        self._body_bytes += size
        if dropped:
            limit = settings.max_discarded_bytes
        else:
            self._watch.body_bytes += size
            self._held_bytes += size
            limit = 2 * settings.max_body_bytes  # in chunks, which include their sizes
        if self._body_bytes > limit + settings.max_header_bytes:
            raise Refused(413, "body_too_large", f"the body has more than {limit:,} bytes")
        if self._held_bytes and self._watch.holds_too_much():
            raise Refused(429, "overloaded", "too many bodies are being received")

    def release(self) -> None:
        """Tells the watch that no bytes are held any more."""
        self._watch.body_bytes -= self._held_bytes
