"""What the machine code of every audio-thread function refers to outside itself.

Run as a program, with an empty cache (what comes out of a cache has no code to look at), it imports every
module that registers such functions, and prints as JSON what each of them calls, what stands in every plugin's
memory, and what it finds in planted violations.
"""

from __future__ import annotations

import importlib
import json
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import violations

import rtgan
from rtgan.graph import ChainItem, Graph
from rtgan.kernels.native import NODES
from rtgan.plugin import plugin_class, whole_plugin_ids


def native_modules() -> list[str]:
    """Every module that registers functions for the audio thread."""
    package = Path(rtgan.__file__).parent
    files = [*package.rglob("*.py"), *(package / "kernels").glob("*.py")]  # the latter is a link
    names = {
        ".".join(("rtgan", *path.relative_to(package).with_suffix("").parts))
        for path in files
        if re.search(r"^@node\b|^ *NODES\[", path.read_text(encoding="utf-8"), re.MULTILINE)
        and "bench" not in path.relative_to(package).parts  # which plays to nobody
    }
    return sorted(names)


def undefined_symbols(elf: bytes) -> set[str]:
    """Names that a 64-bit ELF object refers to and does not define."""
    sections_at, entry, count = (
        *struct.unpack_from("<Q", elf, 0x28), *struct.unpack_from("<HH", elf, 0x3A),
    )  # fmt: skip
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, sections_at + k * entry) for k in range(count)]
    found = set()
    for section in sections:
        if section[1] != 2:  # the symbol table
            continue
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, _, _, index = struct.unpack_from("<IBBH", elf, at)
            if name and index == 0:
                found.add(elf[names + name : elf.index(b"\0", names + name)].decode())
    return found


def outside(text: str) -> list[str]:
    """What a module's code refers to outside itself: ``name``, ``asm ...``, or ``pointer`` for an indirect call.

    Calls are read from the IR; the symbols of the object compiled from it add what the compiler itself puts in.
    """
    module = llvm.parse_assembly(text)
    inside = {f.name for f in module.functions if not f.is_declaration}
    if not inside:
        raise RuntimeError("there is no code to look at: it came out of a cache")
    known = {f.name for f in module.functions}
    found = set()
    for function in module.functions:
        for block in function.blocks:
            for instruction in block.instructions:
                if instruction.opcode not in ("call", "invoke"):
                    continue
                callee = list(instruction.operands)[-1].name
                if " asm " in str(instruction):
                    found.add("asm " + re.search(r'asm [^"]*"([^"]*)"', str(instruction))[1])  # type: ignore[index]
                elif callee not in known:
                    found.add("pointer")
                elif callee not in inside and not callee.startswith("llvm."):
                    found.add(callee)
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), codemodel="large", opt=3
    )
    found |= undefined_symbols(target.emit_object(module)) - {"_GLOBAL_OFFSET_TABLE_"}
    return sorted(found)


def executable_ranges() -> list[tuple[int, int]]:
    """Address ranges of this process that hold machine code."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        if "x" in rights:
            low, high = (int(part, 16) for part in span.split("-"))
            ranges.append((low, high))
    return ranges


def code_pointers(graph: Graph) -> Iterator[int]:
    """Every word of a graph's memory that points into machine code."""
    ranges = executable_ranges()
    for pages, _, size in graph.arena._chunks:
        words = np.frombuffer(pages, np.int64, size // 8)
        for low, high in ranges:
            yield from words[(words >= low) & (words < high)].tolist()


def escaped() -> dict[str, list[str]]:
    """Per plugin: functions in its memory that are neither audited nodes nor lowered generators."""
    from rtgan.generators import compile as generators

    nets: set[int] = set()
    make = generators.Net.__init__

    def remember(self: Any, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        nets.add(self.address)

    generators.Net.__init__ = remember  # type: ignore[method-assign]
    found = {}
    for name in whole_plugin_ids():
        plugin = plugin_class(name)()
        for rate in {48000, 44100 if plugin.rates_hz else 48000}:
            graph = Graph([ChainItem(plugin)], rate, 256, 2)
            audited = {int(n.address): key for key, n in NODES.items()}
            pointers = set(code_pointers(graph))
            assert graph.nodes[0].process in pointers
            found[f"{name} at {rate} Hz"] = sorted(hex(p) for p in pointers - set(audited) - nets)
    stray = Graph([ChainItem(violations.Plant(violations.stray))], 48000, 256, 2)
    found["planted"] = [hex(p) for p in set(code_pointers(stray)) - {int(n.address) for n in NODES.values()}]
    return found


if __name__ == "__main__":
    for module_name in native_modules():
        importlib.import_module(module_name)
    sys.modules["rtgan.kernels.fft"].plan(512)  # its functions are compiled when they are first asked for
    unaccounted = escaped()
    json.dump(
        {"calls": {name: outside(n.inspect_llvm()) for name, n in NODES.items()}, "escaped": unaccounted}, sys.stdout
    )
