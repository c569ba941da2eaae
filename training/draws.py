"""Which clips a step sees: a pure function of seed, step and rank, so there is no sampler state to save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from manifests.sampling import balanced_draw


@dataclass(frozen=True)
class Draw:
    """One sample to load: `row` of the manifest, and the `number` of the draw, which seeds its augmentation."""

    row: int
    number: int


@dataclass
class BalancedBatches:
    """Endless batches drawn by `weights`; an epoch is as many draws as there are clips, each drawn anew.

    Over an epoch a clip comes floor or ceil of its expected number of draws. Ranks see disjoint draws. Iterating from
    `start` gives what an uninterrupted iteration gives from there. Passes of gradient accumulation count as steps.
    """

    weights: np.ndarray
    batch: int
    seed: int
    rank: int = 0
    world: int = 1
    start: int = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        step = self.start
        while True:
            yield self.at(step)
            step += 1

    def at(self, step: int) -> list[Draw]:
        """The draws of this rank at this step."""
        first = (step * self.world + self.rank) * self.batch
        return [Draw(self._row(number), number) for number in range(first, first + self.batch)]

    def _row(self, number: int) -> int:
        epoch, offset = divmod(number, len(self.weights))
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._epoch(epoch)
        return int(self._epochs[epoch][offset])

    def _epoch(self, epoch: int) -> np.ndarray:
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        return balanced_draw(self.weights, len(self.weights), seed)

    @cached_property
    def _epochs(self) -> dict[int, np.ndarray]:
        return {}
