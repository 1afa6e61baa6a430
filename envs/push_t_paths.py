"""Ways of a tool round the T and up to it, in the T's frame (see `push_t_shape`).

The track is the T's outline, moved outwards: where the tool may stand before a push. A way between two places is the
shortest one along the track's outer corners that stays clear of the T (a visibility graph).
"""

import numpy as np

from .push_t_shape import BAR_AND_STEM_M, OUTLINE_M, TOOL_RADIUS_M, Floats


class Track:
    """Round the T with a gap of `clearance_m` between its surface and the tool's."""

    def __init__(self, clearance_m: float):
        self.clearance_m = clearance_m
        along = np.roll(OUTLINE_M, -1, axis=0) - OUTLINE_M
        lengths_m = np.hypot(*along.T)
        along /= lengths_m[:, None]
        outward = np.stack([along[:, 1], -along[:, 0]], -1)
        turns = np.roll(along, 1, axis=0)
        is_outer = turns[:, 0] * along[:, 1] - turns[:, 1] * along[:, 0] > 0  # of each corner; else an inner corner
        out_m = TOOL_RADIUS_M + clearance_m
        self.corners_m: Floats = OUTLINE_M + out_m * (outward + np.roll(outward, 1, axis=0))
        # A push starts opposite to the edge itself; beside an inner corner the tool's own width leaves less of it.
        first_m, last_m = np.where(is_outer, 0.0, out_m), np.where(np.roll(is_outer, -1), 0.0, out_m)
        self._starts_m = OUTLINE_M + out_m * outward + first_m[:, None] * along
        self._lengths_m, self._along, self._inward = lengths_m - first_m - last_m, along, -outward
        self.length_m = float(self._lengths_m.sum())
        half_m = TOOL_RADIUS_M + clearance_m / 2
        self._boxes = BAR_AND_STEM_M.min(1) - half_m, BAR_AND_STEM_M.max(1) + half_m  # low, high: [2, 2] m each
        self._outer_m = self.corners_m[is_outer]
        self._route = _routes(self._distances(self._outer_m[:, None], self._outer_m[None]))

    def place(self, along_m: float) -> tuple[Floats, Floats]:
        """Where a push starts: so far along the track's straight parts, any number being taken modulo its length.

        Returns the place [2] m and the direction inwards [2], of length 1.
        """
        along_m = along_m % self.length_m
        ends_m = np.cumsum(self._lengths_m)
        edge = min(int(np.searchsorted(ends_m, along_m, side="right")), len(ends_m) - 1)
        rest_m = along_m - (ends_m[edge] - self._lengths_m[edge])
        return self._starts_m[edge] + rest_m * self._along[edge], self._inward[edge]

    def nearest(self, place_m: Floats) -> Floats:
        """The point of the track nearest to a place. [2] -> [2] m"""
        start, along = self.corners_m, np.roll(self.corners_m, -1, axis=0) - self.corners_m
        share = ((place_m - start) * along).sum(1) / (along**2).sum(1)
        points = start + np.clip(share, 0.0, 1.0)[:, None] * along
        return points[np.hypot(*(points - place_m).T).argmin()]

    def way(self, start_m: Floats, end_m: Floats) -> list[Floats]:
        """Places to visit from a place, inside the track or out, to another outside of it, both included."""
        way, here = [start_m], start_m
        if self._blocks(start_m, start_m):
            here = self.nearest(start_m)
            way.append(here)
        if self._blocks(here, end_m):
            lengths, hops = self._route
            total = self._distances(here, self._outer_m)[:, None] + lengths + self._distances(end_m, self._outer_m)
            first, last = np.unravel_index(total.argmin(), total.shape)
            way += [self._outer_m[i] for i in hops[first, last]]
        return [*way, end_m]

    def _blocks(self, from_m: Floats, to_m: Floats) -> np.ndarray:
        """Whether straight moves [..., 2] to [..., 2] m come too near to the T. [...]"""
        low, high = self._boxes
        move = (to_m - from_m)[..., None, :]
        move = np.where(np.abs(move) < 1e-12, 1e-12, move)
        one, other = (low - from_m[..., None, :]) / move, (high - from_m[..., None, :]) / move
        enters, leaves = np.minimum(one, other).max(-1), np.maximum(one, other).min(-1)
        return ((enters < leaves) & (leaves > 0) & (enters < 1)).any(-1)

    def _distances(self, from_m: Floats, to_m: Floats) -> Floats:
        """Of straight moves [m]; infinite where they come too near to the T."""
        return np.where(self._blocks(from_m, to_m), np.inf, np.hypot(*np.moveaxis(to_m - from_m, -1, 0)))


def _routes(lengths: Floats) -> tuple[Floats, np.ndarray]:
    """Lengths of the shortest ways between n nodes [n, n], and their nodes, lists of indices [n, n] (Floyd 1962)."""
    n = len(lengths)
    lengths = lengths.copy()
    hops = np.empty((n, n), object)
    for i in range(n):
        for j in range(n):
            hops[i, j] = [i] if i == j else [i, j]
    np.fill_diagonal(lengths, 0.0)
    for k in range(n):
        for i in range(n):
            for j in range(n):
                if lengths[i, k] + lengths[k, j] < lengths[i, j]:
                    lengths[i, j] = lengths[i, k] + lengths[k, j]
                    hops[i, j] = hops[i, k] + hops[k, j][1:]
    return lengths, hops
