"""Says now and then how far long work is. Standard library only."""

import logging
import time

_LOGGER = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """Logs rate, share done and time left every few seconds."""

  def __init__(self, what: str, *, unit: str):
    """`what` is being done, and its rate is counted in `unit`."""
    self._what, self._unit = what, unit
    self._start = self._last = time.monotonic()

  def update(self, count: int, *, share: float | None) -> None:
    """`count` units are done, which is this `share` of all: 0 to 1.

    `share` None: not known.
    """
    now = time.monotonic()
    if now - self._last < SECONDS_BETWEEN_LINES:
      return
    self._last = now
    seconds = now - self._start
    line = f"{count:,} {self._unit}, {count / seconds:,.0f} a second"
    if share:
      left = seconds / share - seconds
      line = f"{min(share, 1):.0%}, {line}, {max(left, 0):,.0f} s left"
    _LOGGER.info("%s: %s", self._what, line)
