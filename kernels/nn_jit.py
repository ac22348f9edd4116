"""From the IR text of `nn_code` to machine code, and from machine code to an address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm

from .nn_code import Code, Machine


class Functions:
    """The functions of one module: equal bodies are kept once.

    Equal layers of a net (the same shapes at other addresses) share their code, which keeps the instruction
    cache and the compile time small.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._declarations: set[str] = set()

    def add(self, code: Code) -> str:
        """Add a finished function; returns its name."""
        self._declarations |= code.declarations
        return self._names.setdefault(code.text("NAME"), f"layer{len(self._names)}")

    def __len__(self) -> int:
        return len(self._names)

    def text(self) -> str:
        """All functions and the declarations they need."""
        bodies = (body.replace("@NAME(", f"@{name}(", 1) for body, name in self._names.items())
        return "\n".join([*sorted(self._declarations), *bodies, ""])


def calls_of(ir: str) -> set[str]:
    """Names of everything the IR calls that it does not define itself."""
    import re

    called = set(re.findall(r"\bcall [^@]*@([\w.]+)\(", ir))
    return called - set(re.findall(r"^define [^@]*@([\w.]+)\(", ir, re.MULTILINE))


def _initialise(machine: Machine) -> None:
    if machine.triple == Machine.host().triple:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def _target(machine: Machine) -> Any:
    _initialise(machine)
    target = llvm.Target.from_triple(machine.triple)
    return target.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small"
    )


def assemble(machine: Machine, ir: str) -> bytes:
    """Compile IR text to an object file for ``machine`` [main thread]."""
    target = _target(machine)
    module = llvm.parse_assembly(ir)
    module.triple = machine.triple
    module.data_layout = str(target.target_data)
    module.verify()
    return bytes(target.emit_object(module))


class Loaded:
    """Machine code in memory. The address of each symbol is valid while this object lives."""

    def __init__(self, code: bytes) -> None:
        self._target = _target(Machine.host())
        self._module = llvm.parse_assembly("")
        # llvmlite's memory manager keeps code and constants close together, as the small code model needs.
        self._engine = llvm.create_mcjit_compiler(self._module, self._target, use_lmm=True)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        """Address of a function."""
        address = int(self._engine.get_function_address(symbol))
        if not address:
            raise KeyError(symbol)
        return address


def module_text(functions: Functions, entry: str, parameters: Iterable[str], lines: Iterable[str]) -> str:
    """IR of a module whose only public function is ``entry``."""
    arguments = ", ".join(f"ptr {p}" for p in parameters)
    return f"{functions.text()}\ndefine void @{entry}({arguments}) nounwind {{\n" + "\n".join(
        [*(f"  {line}" for line in lines), "  ret void", "}", ""]
    )
