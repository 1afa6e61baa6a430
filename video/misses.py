"""Deadlines at the rates that video is shown at, counted in every run: a block is late where drawing it took longer
than showing its frames takes."""

RATES_HZ = (10, 15, 30)


class Misses:
    """Blocks drawn, how many were late at each rate, and the most late ones in a row."""

    def __init__(self) -> None:
        self.blocks = 0
        self._late = dict.fromkeys(RATES_HZ, 0)
        self._row = dict.fromkeys(RATES_HZ, 0)
        self._longest = dict.fromkeys(RATES_HZ, 0)

    def count(self, seconds: float, frames: int) -> None:
        """A block of `frames` frames took `seconds`."""
        self.blocks += 1
        for rate in RATES_HZ:
            late = seconds > frames / rate
            self._late[rate] += late
            self._row[rate] = self._row[rate] + 1 if late else 0
            self._longest[rate] = max(self._longest[rate], self._row[rate])

    def told(self) -> dict[str, dict[str, float]]:
        """{"10": {"late": share, "longest": blocks}, ...}"""
        blocks = max(1, self.blocks)
        return {str(r): {"late": self._late[r] / blocks, "longest": self._longest[r]} for r in RATES_HZ}
