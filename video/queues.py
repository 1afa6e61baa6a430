"""A bounded queue of frames between the thread that draws and the one that shows."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Holds at most `capacity` frames. Whoever draws waits for room, or drops the oldest; whoever shows never waits.

    dropped, flushed: how many went unseen, for want of room and because they were out of date
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.dropped, self.flushed = capacity, 0, 0
        self._frames: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: T) -> None:
        """At the end; where there is no room the oldest goes."""
        with self._changed:
            if len(self._frames) == self.capacity:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)

    def take(self) -> T | None:
        """The oldest, or None."""
        with self._changed:
            self._changed.notify_all()
            return self._frames.popleft() if self._frames else None

    def flush(self) -> None:
        """Drop everything: it was drawn before something changed."""
        with self._changed:
            self.flushed += len(self._frames)
            self._frames.clear()
            self._changed.notify_all()

    def wait_for(self, room: int) -> bool:
        """Until `room` frames fit; False once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.capacity - len(self._frames) >= room)
            return not self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
