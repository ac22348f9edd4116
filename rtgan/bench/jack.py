"""The proof on a real audio server: blocks lost by the host, beside those lost by a C client that does nothing.

Both are measured alike: a C function stamps begin and end of every process callback. The host's process is made
as hostile as Python can be: one thread computes, another makes calls of 100 ms that hold the interpreter lock.

Virtual machines stop now and then, and then everybody loses blocks. A detector of the highest priority on every
core notes such stalls; a block lost near one says nothing about the host and is counted apart.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError

if TYPE_CHECKING:
    from rtgan.host import Host

RATE_HZ = 48000
_ROOT = Path(__file__).resolve().parents[2]
_STALL_WINDOW_PERIODS = 4
_SETTLE_S = 0.5
#: A server waits for clients that have gone; one that is killed keeps its place among the eight that a machine has, and
#: a user's own can start no more once all are taken.
_SERVER_ENDS_S = 90.0
#: Who is measured.
HOST, IDLE, ALIKE = "rtgan", "idle C client", "C client of the same load"
_HOLD_US = 100_000

#: One source, two uses: a library that stamps the host's callback, and a program that is everything else.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Stamps: begin, end, frames of each callback; written by one audio thread. */
static int64_t *stamps, room, count;

static void stamp(int64_t begin, int64_t frames) {
    int64_t at = count;
    if (at < room) {
        stamps[3 * at] = begin;
        stamps[3 * at + 1] = now();
        stamps[3 * at + 2] = frames;
    }
    __atomic_store_n(&count, at + 1, __ATOMIC_RELEASE);
}

/* How many callbacks there have been, at the time that is stored. */
int64_t mark(int64_t *when) {
    *when = now();
    return __atomic_load_n(&count, __ATOMIC_ACQUIRE);
}

/* The host's callback between two stamps, hearing a sound instead of the device. */
typedef int32_t (*callback)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
static callback inner;
static const float *sound;
static int64_t sound_frames, sound_at;

void prepare(callback function, int64_t *table, int64_t size, const float *samples, int64_t frames) {
    inner = function;
    stamps = table;
    room = size;
    sound = samples;
    sound_frames = frames;
}

int32_t stamped(int64_t source, int64_t target, int64_t frames, int64_t times, int64_t flags, int64_t engine) {
    int64_t begin = now();
    if (sound_at + frames > sound_frames)
        sound_at = 0;
    int32_t result = inner((int64_t)(sound + sound_at), target, frames, times, flags, engine);
    sound_at += frames;
    stamp(begin, frames);
    return result;
}

/* libjack without its headers. */
static void *(*client_open)(const char *, int, int *, ...);
static int (*client_close)(void *), (*activate)(void *), (*connect_ports)(void *, const char *, const char *);
static int (*set_process)(void *, int (*)(uint32_t, void *), void *);
static void *(*port_register)(void *, const char *, const char *, unsigned long, unsigned long);
static void *(*port_buffer)(void *, uint32_t);
static void *playback;
static int64_t spin, hop, at;

static int load(void) {
    void *library = dlopen("libjack.so.0", RTLD_NOW);
    if (!library)
        return 0;
    client_open = (void *(*)(const char *, int, int *, ...))dlsym(library, "jack_client_open");
    client_close = (int (*)(void *))dlsym(library, "jack_client_close");
    activate = (int (*)(void *))dlsym(library, "jack_activate");
    connect_ports = (int (*)(void *, const char *, const char *))dlsym(library, "jack_connect");
    set_process = (int (*)(void *, int (*)(uint32_t, void *), void *))dlsym(library, "jack_set_process_callback");
    port_register = (void *(*)(void *, const char *, const char *, unsigned long, unsigned long))
        dlsym(library, "jack_port_register");
    port_buffer = (void *(*)(void *, uint32_t))dlsym(library, "jack_port_get_buffer");
    return client_open && client_close && activate && connect_ports && set_process && port_register && port_buffer;
}

static int idle(uint32_t frames, void *unused) {
    int64_t begin = now();
    memset(port_buffer(playback, frames), 0, 4 * frames);
    at += frames;
    if (hop && at / hop > (at - frames) / hop)
        while (now() - begin < spin) {}
    stamp(begin, frames);
    return 0;
}

static void pause_for(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&t, &t)) {}
}

/* client SETTLE SECONDS ROOM FILE SPIN HOP: computes for so many ns whenever a hop is complete */
static int client(char **v) {
    int status;
    int64_t first, last, until;
    void *self = client_open("idle", 1, &status);
    if (!self)
        return 3;
    room = atoll(v[2]);
    spin = atoll(v[4]);
    hop = atoll(v[5]);
    stamps = malloc(24 * room);
    memset(stamps, 0, 24 * room);
    mlockall(MCL_CURRENT);
    set_process(self, idle, 0);
    port_register(self, "in", "32 bit float mono audio", 1, 0);
    playback = port_register(self, "out", "32 bit float mono audio", 2, 0);
    if (activate(self))
        return 4;
    connect_ports(self, "system:capture_1", "idle:in");
    connect_ports(self, "idle:out", "system:playback_1");
    pause_for(atof(v[0]));
    first = mark(&until);
    pause_for(atof(v[1]));
    last = mark(&until);
    client_close(self);
    FILE *out = fopen(v[3], "wb");
    int64_t head[3] = {first, last, until};
    if (!out || last > room || fwrite(head, 24, 1, out) != 1 || fwrite(stamps, 24, last, out) != (size_t)last)
        return 5;
    return fclose(out) ? 5 : 0;
}

/* stalls CORES: one line per wake-up that comes more than 1 ms late; the first line says how many are real-time. */
static int64_t real_time;
static pthread_barrier_t ready;

static void *watch(void *core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((long)core, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    struct sched_param p = {.sched_priority = 90};
    if (!pthread_setschedparam(pthread_self(), SCHED_FIFO, &p))
        __atomic_add_fetch(&real_time, 1, __ATOMIC_RELAXED);
    pthread_barrier_wait(&ready);
    for (;;) {
        int64_t due = now() + 500000;
        struct timespec t = {due / 1000000000LL, due % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
        int64_t woken = now();
        if (woken - due > 1000000)
            printf("%lld %lld\n", (long long)due, (long long)woken);
    }
    return 0;
}

static int stalls(long cores) {
    pthread_t thread;
    mlockall(MCL_CURRENT | MCL_FUTURE);
    setvbuf(stdout, 0, _IOLBF, 1 << 16);
    pthread_barrier_init(&ready, 0, cores + 1);
    for (long core = 0; core < cores; core++)
        pthread_create(&thread, 0, watch, (void *)core);
    pthread_barrier_wait(&ready);
    printf("real-time %lld\n", (long long)real_time);
    for (;;)
        pause_for(3600);
}

int main(int c, char **v) {
    int status;
    if (c == 3 && !strcmp(v[1], "stalls"))
        return stalls(atol(v[2]));
    if (!load())
        return 2;
    if (c == 8 && !strcmp(v[1], "client"))
        return client(v + 2);
    /* wait: until a server answers */
    for (int tries = 0; tries < 200; tries++) {
        void *self = client_open("wait", 1, &status);
        if (self)
            return client_close(self);
        pause_for(0.05);
    }
    return 3;
}
"""


class Unavailable(RtganError):
    """Something that the measurement needs is not on this machine; the text names it."""


@dataclass(frozen=True)
class Loss:
    """Blocks lost in one place.

    Parameters
    ----------
    at_s : float
        When, from the beginning of the measurement.
    blocks : int
    load : float
        What the callback before it took, in periods: above 1, the callback itself was stopped or too slow;
        below, the next one came too late.
    in_stall : bool
        Whether the machine stalled then.
    """

    at_s: float
    blocks: int
    load: float
    in_stall: bool


@dataclass(frozen=True)
class Session:
    """What one client's process callback went through.

    Parameters
    ----------
    begin_ns, end_ns, frames : ndarray of int64, (callbacks,)
        Every callback since the client began.
    first : int
        The callback with which the measurement begins.
    until_ns : int
        When it ended.
    """

    begin_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    frames: NDArray[np.int64]
    first: int
    until_ns: int

    @classmethod
    def read(cls, path: Path) -> Session:
        """Read the file that a client has written."""
        words = np.fromfile(path, np.int64).reshape(-1, 3)
        first, last, until = (int(w) for w in words[0])
        begin, end, frames = np.ascontiguousarray(words[1 : last + 1].T)
        return cls(begin, end, frames, first, until)

    def lost(self, period_ns: float) -> NDArray[np.int64]:
        """Blocks lost behind each measured callback, (callbacks,).

        Being late is made up for by the next callbacks; a lost block moves all that follow by one period. So
        what counts is by how much the earliest of all later callbacks is behind.
        """
        begin = self.begin_ns[self.first :]
        if len(begin) == 0:
            raise RtganError("the audio server has called nobody back")
        behind = begin - np.arange(len(begin)) * period_ns
        floor = np.minimum.accumulate(behind[::-1])[::-1]
        shifts = np.floor((floor - floor[0]) / period_ns + 0.5).astype(np.int64)
        at_end = max(0, int((self.until_ns - begin[-1]) / period_ns) - 1)
        return np.append(np.diff(shifts), at_end)

    def losses(self, stalls: NDArray[np.int64], period_ns: float) -> list[Loss]:
        """Every place where blocks were lost; ``stalls``, (stalls, 2), are begin and end."""
        lost = self.lost(period_ns)
        begin = np.append(self.begin_ns[self.first :], self.until_ns)
        taken = self.loads(period_ns)
        found = []
        for k in np.flatnonzero(lost):
            start, stop = begin[k] - _STALL_WINDOW_PERIODS * period_ns, begin[k + 1]
            near = bool(((stalls[:, 1] >= start) & (stalls[:, 0] <= stop)).any())
            found.append(Loss((begin[k] - begin[0]) / 1e9, int(lost[k]), float(taken[k]), near))
        return found

    def within(self, stalls: NDArray[np.int64]) -> int:
        """How many stalls fall into the measurement."""
        return int(((stalls[:, 1] >= self.begin_ns[self.first]) & (stalls[:, 0] <= self.until_ns)).sum())

    def loads(self, period_ns: float) -> NDArray[np.float64]:
        """Share of the period that each measured callback took, (callbacks,)."""
        return (self.end_ns - self.begin_ns)[self.first :] / period_ns

    def stalled(self, stalls: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the machine stood still during each measured callback, (callbacks,)."""
        begin, end = self.begin_ns[self.first :], self.end_ns[self.first :]
        hit = np.zeros(len(begin), bool)
        for start, stop in stalls:
            hit |= (begin <= stop) & (end >= start)
        return hit

    def computes_frame(self, hop_samples: int) -> NDArray[np.bool_]:
        """Whether each measured callback completes a hop and so computes a spectral frame, (callbacks,)."""
        after = np.cumsum(self.frames)
        return np.asarray(after // hop_samples > (after - self.frames) // hop_samples)[self.first :]


class Rig:
    """The compiled helpers, in a folder that goes when the rig is closed."""

    def __init__(self) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise Unavailable("there is no C compiler (Debian: apt-get install gcc libc6-dev)")
        self._folder = tempfile.TemporaryDirectory(prefix="rtgan-bench-")
        self.folder = Path(self._folder.name)
        source = self.folder / "rig.c"
        source.write_text(SOURCE, encoding="utf-8")
        self.program, self.shared = self.folder / "rig", self.folder / "rig.so"
        for more in (["-o", str(self.program)], ["-shared", "-fPIC", "-o", str(self.shared)]):
            done = subprocess.run(
                [compiler, "-O2", "-w", *more, str(source), "-lpthread", "-ldl"], capture_output=True, text=True
            )
            if done.returncode:
                self.close()
                first = (done.stderr.strip().splitlines() or ["no reason given"])[0]
                raise Unavailable(f"the C compiler does not work ({first})")

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end(process: subprocess.Popen[Any], patience_s: float = 5.0) -> None:
    """Stop a child, by force where it does not listen."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def child(env: dict[str, str], module: str, function: str, *arguments: str | float) -> subprocess.Popen[str]:
    """Run a function of one of the measurements in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from rtgan.bench import {module}; {module}.{function}(*{arguments!r})"],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def next_line(process: subprocess.Popen[str], seconds: float) -> str:
    """The line that it says next; a process that says none for so long is ended, and has said nothing."""
    assert process.stdout is not None
    patience = threading.Timer(seconds, process.kill)
    patience.start()
    try:
        line = process.stdout.readline()
    finally:
        patience.cancel()
    return line.strip() if line.endswith("\n") else ""


def reason(errors: str) -> str:
    """Why a process failed, by what it wrote to its standard error."""
    return (errors.strip().splitlines() or ["no reason given"])[-1]


def last_words(process: subprocess.Popen[str]) -> str:
    """End a child that has failed, and say why it has."""
    end(process)
    try:
        _, errors = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # a child of its own still holds its end of the pipe
        errors = ""
    return reason(errors)


def _may_be_real_time() -> bool:
    if os.geteuid() == 0:
        return True
    import resource

    limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    return limit == resource.RLIM_INFINITY or limit >= 70


@contextmanager
def server(rig: Rig, period: int, real_time: bool = True) -> Iterator[dict[str, str]]:
    """A private JACK server without hardware; gives the environment in which it is found."""
    jackd = shutil.which("jackd")
    if jackd is None:
        raise Unavailable("there is no JACK server (Debian: apt-get install jackd2)")
    name = f"rtgan-bench-{os.getpid()}-{time.monotonic_ns()}"
    env = {**os.environ, "JACK_DEFAULT_SERVER": name, "JACK_NO_AUDIO_RESERVATION": "1"}
    env["PYTHONPATH"] = os.pathsep.join(p for p in (str(_ROOT), os.environ.get("PYTHONPATH")) if p)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    scheduling = ["-R", "-P", "70"] if real_time and _may_be_real_time() else ["-r"]
    process = subprocess.Popen(
        [jackd, "-n", name, *scheduling, "--timeout", "5000", "-d", "dummy", "-r", str(RATE_HZ), "-p", str(period)],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        try:
            waited = subprocess.run(
                [rig.program, "wait"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60
            ).returncode
        except subprocess.TimeoutExpired:
            raise Unavailable("the JACK server hangs") from None
        if waited or process.poll() is not None:
            raise Unavailable("the JACK server does not start")
        yield env
    finally:
        end(process, _SERVER_ENDS_S)
        sweep(name)


def sweep(name: str) -> None:
    """Take away what clients of a server that has ended left in shared memory; it would lie there for good."""
    for left in Path("/dev/shm").glob(f"jack*{name}*"):
        left.unlink(missing_ok=True)


class Stalls:
    """The stall detector, running until it is asked."""

    def __init__(self, rig: Rig) -> None:
        self._process = subprocess.Popen(
            [rig.program, "stalls", str(os.cpu_count() or 1)], stdout=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(line for line in self._process.stdout if line.endswith("\n"))

    def close(self) -> tuple[NDArray[np.int64], bool]:
        """Stop it. Begin and end of every stall, (stalls, 2), and whether the detector was real-time itself."""
        end(self._process)
        self._reader.join()
        words = [line.split() for line in self._lines]
        found = [[int(w[0]), int(w[1])] for w in words if w[0] != "real-time"]
        on_all = any(w == ["real-time", str(os.cpu_count() or 1)] for w in words)
        return np.array(found, np.int64).reshape(-1, 2), on_all


class Stamped:
    """A host that has not begun, whose callbacks are stamped and hear a noisy recording instead of the device.

    Parameters
    ----------
    library : str
        The rig's.
    host : Host
    seconds : float
        What there is room for, from the host's start to the end of the measurement.
    """

    def __init__(self, library: str, host: Host, seconds: float) -> None:
        from rtgan import demo
        from rtgan.memory import Arena, address_of

        self._rig = rig = ctypes.CDLL(library)
        rig.mark.restype = ctypes.c_int64
        self._host = host
        self._room = int(seconds * RATE_HZ / 16)
        self._memory = memory = Arena()
        self._table, sound = memory.int64(3 * self._room), memory.put(demo.recording()[0])
        rig.prepare(
            ctypes.c_void_p(host.engine.callback_address), ctypes.c_void_p(address_of(self._table)),
            ctypes.c_int64(self._room), ctypes.c_void_p(sound), ctypes.c_int64(demo.recording().shape[1]),
        )  # fmt: skip
        host.engine.callback_address = int(ctypes.cast(rig.stamped, ctypes.c_void_p).value or 0)

    def measure(self, seconds: float, target: str) -> dict[str, Any]:
        """Let so much time go by and write the stamps; what the host counted meanwhile."""
        until = ctypes.c_int64()
        before = self._host.engine.counters.xruns
        first = self._rig.mark(ctypes.byref(until))
        time.sleep(seconds)
        last = self._rig.mark(ctypes.byref(until))
        flagged = self._host.engine.counters.xruns - before
        if last > self._room:
            raise RtganError("the server called back more often than there is room for")
        head = np.array([first, last, until.value])
        np.concatenate([head, self._table[: 3 * last]]).astype(np.int64).tofile(target)
        return {"flagged": flagged, "faults": sum(self._host.stats().faults.values())}


def host_session(library: str, target: str, preset: str, seconds: float) -> None:
    """Play through a preset on the JACK server of the environment, in this process, and write the stamps."""
    from rtgan.host import Host

    host = Host(preset, input="system", output="system", in_channels=(1,))
    stamped = Stamped(library, host, seconds + 30)
    halt = threading.Event()
    holding = ctypes.PyDLL(None).usleep

    def compute() -> None:
        while not halt.is_set():
            sum(range(1000))

    def hold() -> None:
        while not halt.is_set():
            holding(_HOLD_US)

    with host:
        if not host.wait_first_block():
            raise RtganError("the audio server does not call back")
        for work in (compute, hold):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(_SETTLE_S)
        report = stamped.measure(seconds, target)
        halt.set()
    print(json.dumps(report))


def _run_host(rig: Rig, env: dict[str, str], preset: str, seconds: float, target: Path) -> dict[str, Any]:
    code = (
        "import sys; from rtgan.bench import jack; "
        "jack.host_session(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(rig.shared), str(target), preset, str(seconds)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=seconds + 180)
    except subprocess.TimeoutExpired:
        raise RtganError("the host did not come to an end") from None
    finally:
        end(process)
    if process.returncode:
        raise RtganError(f"the host failed: {reason(errors)}")
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


def _run_client(
    rig: Rig, env: dict[str, str], seconds: float, target: Path, spin_ns: int = 0, hop_samples: int = 0
) -> dict[str, Any]:
    room = str(int((seconds + 30) * RATE_HZ / 16))
    process = subprocess.Popen(
        [rig.program, "client", str(_SETTLE_S), str(seconds), room, target, str(spin_ns), str(hop_samples)],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        code = process.wait(seconds + 60)
    except subprocess.TimeoutExpired:
        raise RtganError("the C client did not come to an end") from None
    finally:
        end(process)
    if code:
        raise RtganError(f"the C client failed with code {code}")
    return {}


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, percentiles and maximum of a set of measurements."""
    p50, p99, p99_9 = np.percentile(values, [50, 99, 99.9])
    figures = {"mean": values.mean(), "p50": p50, "p99": p99, "p99.9": p99_9, "max": values.max()}
    return {name: float(value) for name, value in figures.items()}


def summary(
    client: str, period: int, hop_samples: int, runs: Sequence[tuple[Session, NDArray[np.int64], dict[str, Any]]]
) -> dict[str, Any]:
    """One row of the proof: the runs of one client at one period, put together."""
    period_ns = period / RATE_HZ * 1e9
    row: dict[str, Any] = {"measure": "jack", "client": client, "period_samples": period, "runs": len(runs)}
    losses = [s.losses(stalls, period_ns) for s, stalls, _ in runs]
    row["lost"] = sum(loss.blocks for run in losses for loss in run)
    row["blocks"] = sum(len(s.loads(period_ns)) for s, _, _ in runs) + row["lost"]
    row["lost_in_stalls"] = sum(loss.blocks for run in losses for loss in run if loss.in_stall)
    row["lost_own"] = row["lost"] - row["lost_in_stalls"]
    row["own"] = [{"run": k, **vars(loss)} for k, run in enumerate(losses) for loss in run if not loss.in_stall]
    row["stalls"] = sum(s.within(stalls) for s, stalls, _ in runs)
    for key in ("flagged", "faults"):
        if all(key in report for _, _, report in runs):
            row[key] = sum(report[key] for _, _, report in runs)
    loads = 100 * np.concatenate([s.loads(period_ns) for s, _, _ in runs])
    row["load_percent"] = spread(loads)
    if hop_samples:
        frames = np.concatenate([s.computes_frame(hop_samples) for s, _, _ in runs])
        for name, chosen in (("with_frame", frames), ("without_frame", ~frames)):
            if chosen.any():
                row[f"load_percent_{name}"] = spread(loads[chosen])
        calm = ~np.concatenate([s.stalled(stalls) for s, stalls, _ in runs])
        if (frames & calm).any():
            row["load_percent_with_frame_outside_stalls"] = spread(loads[frames & calm])
    return row


def proof(
    rig: Rig, preset: str, hop_samples: int, seconds: float, rounds: int, periods: Sequence[int] = (64, 128)
) -> list[dict[str, Any]]:
    """Host, idle C client, and a C client that computes as long as the host does, in turns at each period.

    The last one shows what the machine makes of a callback that takes its time, whoever it belongs to.

    Parameters
    ----------
    rig : Rig
    preset : str
        What the host plays through.
    hop_samples : int
        Its spectral hop, to tell callbacks that compute a frame from others; 0 for none.
    seconds : float
        Length of one run.
    rounds : int
        Runs of each.
    periods : sequence of int
        JACK periods in samples at 48 kHz.

    Returns
    -------
    list of dict
        A row for each client and period; see `summary`.
    """
    rows = []
    for period in periods:
        clients = [HOST, IDLE, *([ALIKE] if hop_samples else [])]
        runs: dict[str, list[tuple[Session, NDArray[np.int64], dict[str, Any]]]] = {name: [] for name in clients}
        spin_ns = 0
        real_time = True
        with server(rig, period) as env:
            for _ in range(rounds):
                for name, done in runs.items():
                    target = rig.folder / "stamps"
                    stalls = Stalls(rig)
                    try:
                        if name == HOST:
                            report = _run_host(rig, env, preset, seconds, target)
                        elif name == IDLE:
                            report = _run_client(rig, env, seconds, target)
                        else:
                            report = _run_client(rig, env, seconds, target, spin_ns, hop_samples)
                    finally:
                        found, on_all = stalls.close()
                    real_time = real_time and on_all
                    session = Session.read(target)
                    if not (session.frames[session.first :] == period).all():
                        raise RtganError("the audio server did not keep to its period")
                    done.append((session, found, report))
                    if name == HOST and hop_samples:
                        loads = session.loads(period / RATE_HZ * 1e9)[session.computes_frame(hop_samples)]
                        spin_ns = int(np.median(loads) * period / RATE_HZ * 1e9)
        for name, done in runs.items():
            row = summary(name, period, 0 if name == IDLE else hop_samples, done)
            row["preset"] = preset if name == HOST else None
            row["detector_real_time"] = real_time
            rows.append(row)
    return rows


_START = """
import json, sys, time
from rtgan import cli, warm
def tell():
    first = time.monotonic()
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(json.dumps({"first_block": first, "cpu_s": time.process_time(), "torch": "torch" in sys.modules,
                      "resident_mb": int(status["VmRSS"].split()[0]) / 1024}), flush=True)
warm.done = tell  # called right after the first block
sys.exit(cli.main(["live", "--preset", sys.argv[1], "--input", "system", "--output", "system", "--seconds", "0.3"]))
"""


def start_up(rig: Rig, preset: str, rounds: int = 5) -> dict[str, Any]:
    """Time from the start of the process of ``rtgan live`` to its first processed block, with a warm cache.

    Returns
    -------
    dict
        ``first_block_s`` (median) and ``first_block_s_all``, ``cpu_s`` (median processor time until then),
        ``resident_mb`` (most) and whether ``torch`` was imported.
    """
    reports = []
    with server(rig, 128) as env:
        for turn in range(rounds + 1):
            begin = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-c", _START, preset],
                env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                out, errors = process.communicate(timeout=180)
            except subprocess.TimeoutExpired:
                raise RtganError("`rtgan live` did not come to an end") from None
            finally:
                end(process)
            lines = [line for line in out.splitlines() if line.startswith('{"first_block"')]
            if process.returncode or not lines:
                raise RtganError(f"`rtgan live` failed: {reason(errors)}")
            report = json.loads(lines[0])
            report["first_block"] -= begin
            if turn:  # the first one fills the caches
                reports.append(report)
    return {
        "measure": "start",
        "preset": preset,
        "first_block_s": float(np.median([r["first_block"] for r in reports])),
        "first_block_s_all": [r["first_block"] for r in reports],
        "cpu_s": float(np.median([r["cpu_s"] for r in reports])),
        "resident_mb": max(r["resident_mb"] for r in reports),
        "torch": any(r["torch"] for r in reports),
    }
