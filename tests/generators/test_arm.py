"""Code for 64-bit Arm gives TorchScript's answers, run by an emulator where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the torch extra)")

from comparing import tensors  # noqa: E402
from test_lowering import CASES  # noqa: E402

from rtgan.generators import compile as compiler  # noqa: E402
from rtgan.generators.record import record  # noqa: E402
from rtgan.kernels import nn_jit  # noqa: E402
from rtgan.kernels.nn_code import Machine  # noqa: E402

EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
LINKER = shutil.which("aarch64-linux-gnu-gcc")
#: Every so many of the cases of the lowering: all kinds of layers, a few seconds.
EACH = 12
CALLER = """
#include <stdio.h>
#include <stdlib.h>
extern void run(float *, const float *);
static long size;
static float *get(const char *name) {
    FILE *f = fopen(name, "rb");
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    float *p = aligned_alloc(64, size / 64 * 64 + 64);
    if (fread(p, 1, size, f) != (size_t)size) exit(1);
    fclose(f);
    return p;
}
int main(int n, char **names) {
    float *weights = get(names[2]), *arena = get(names[1]);
    run(arena, weights);
    FILE *f = fopen(names[1], "wb");
    fwrite(arena, 1, size, f);
    return fclose(f);
}
"""


@pytest.mark.skipif(not (EMULATOR and LINKER), reason="needs qemu-user-static and gcc-aarch64-linux-gnu")
@pytest.mark.parametrize("name", list(CASES)[::EACH])
def test_code_for_arm_runs(name: str, tmp_path: Path) -> None:
    function, shapes = CASES[name][:2]
    if isinstance(function, torch.nn.Module):
        function.eval()
    machine = Machine.of("aarch64-unknown-linux-gnu", "cortex-a72", {"neon": True})
    torch.manual_seed(1)
    program = record(function, [torch.zeros(s) for s in shapes])
    low = compiler._lower(program, (), machine)
    builder = compiler._Builder(low, machine, False)
    given = [torch.randn(s) for s in shapes]
    with torch.inference_mode():
        expected = tensors(function(*[t.clone() for t in given]))
    before = builder.initial()
    for place, t in zip(builder.places(low.inputs), given, strict=True):
        place.of(before)[...] = t.numpy()
    before.tofile(tmp_path / "arena")
    builder.weights().tofile(tmp_path / "weights")
    (tmp_path / "net.o").write_bytes(nn_jit.assemble(machine, builder.text()))
    (tmp_path / "caller.c").write_text(CALLER)
    subprocess.run([str(LINKER), "-static", "caller.c", "net.o", "-o", "caller"], cwd=tmp_path, check=True)
    subprocess.run([str(EMULATOR), "-cpu", "cortex-a72", "./caller", "arena", "weights"], cwd=tmp_path, check=True)
    after = np.fromfile(tmp_path / "arena", np.float32)
    for place, t in zip(builder.places(low.outputs), expected, strict=True):
        assert np.abs(place.of(after) - t.numpy()).max() <= 1e-5 * float(t.abs().max())
