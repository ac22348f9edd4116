"""One model alone in an engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan import events
from rtgan.engine import Engine
from rtgan.graph import ChainItem, Graph
from rtgan.plugin import Plugin, plugin_class
from rtgan.worker.worker import Worker

Frames = NDArray[np.float32]


class Rig:
    """A model in an engine; ``patient`` as files are rendered, else live; ``call`` with calls of that length."""

    def __init__(
        self, model: Path, rate: int = 48000, channels: int = 1, patient: bool = True,
        values: dict[str, float] | None = None, call: int = 0, **options: str,
    ) -> None:  # fmt: skip
        given = {"model": str(model), "run": "worker", **options}
        made = plugin_class("model").variant(given, load=True)
        assert made is not None
        self._begin(made(**given), rate, channels, patient, values, call)

    @classmethod
    def of(cls, plugin: Plugin, rate: int, channels: int, values: dict[str, float]) -> Rig:
        """A plugin that is made already."""
        rig = cls.__new__(cls)
        rig._begin(plugin, rate, channels, True, values)
        return rig

    def _begin(
        self, plugin: Plugin, rate: int, channels: int, patient: bool, values: dict[str, float] | None, call: int = 0
    ) -> None:  # fmt: skip
        most = max(512, min(call, 1024))
        self.engine = Engine(rate, channels, max_block=most)
        self.graph = Graph(
            [ChainItem(plugin, dict(values or {}), "it")], rate, most, channels, period_samples=call, regular=call > 0
        )
        if patient:
            self.graph.wait_for_workers()
        self.engine.publish(self.graph)
        self.rate, self.latency = rate, self.graph.latency_samples

    @property
    def worker(self) -> Worker:
        kept = self.graph.nodes[0].keep
        while not isinstance(kept, Worker):
            kept = kept[0]
        return kept

    def run(self, sound: Frames, block: int = 256, cuts: NDArray[np.int64] | None = None) -> Frames:
        """Play (frames,) or (frames, channels)."""
        frames = np.ascontiguousarray(sound if sound.ndim == 2 else sound[:, None], np.float32)
        cuts = np.arange(block, len(frames), block) if cuts is None else cuts
        out = np.concatenate([self.engine.render(part) for part in np.split(frames, cuts) if len(part)])
        assert self.engine.memory_intact
        return out if sound.ndim == 2 else out[:, 0]

    def live(self, sound: Frames, block: int = 256, until: Callable[[], bool] | None = None, least: int = 0) -> Frames:
        """Play a sound over and over at its own pace until something is so, and at least so many frames."""
        out, done, begin = [], 0, time.perf_counter()
        while done < least or (until is not None and not until()):
            assert time.perf_counter() - begin < 30, "it never came about"
            at = np.arange(done, done + block) % len(sound)
            out.append(self.engine.render(np.ascontiguousarray(sound[at, None]))[:, 0])
            done += block
            ahead = begin + done / self.rate - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
        return np.concatenate(out)

    def set(self, param: str, value: float, when: int = events.NOW) -> None:
        assert self.engine.set_param(self.graph, self.graph.find(f"it.{param}")[0], value, when)

    @property
    def late(self) -> int:
        return self.worker.node.late


def delayed(sound: Frames, samples: int) -> Frames:
    return np.concatenate([np.zeros((samples, *sound.shape[1:]), np.float32), sound])[: len(sound)]
