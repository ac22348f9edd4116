"""Saving, renaming and deleting presets of one's own, in a way that can be undone.

Presets are given by name, never by path: nothing outside the person's own folder is touched. Factory presets stay as
they are; one of the same file name in one's own folder stands in front of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtgan import preset_text, presets, setlist
from rtgan.errors import RtganError, UsageError
from rtgan.presets import Preset
from rtgan.rules import Rule


@dataclass(frozen=True)
class Change:
    """Files as they were and as they are; what is None is not there.

    Parameters
    ----------
    what : str
        In a few words: "rename Club".
    before, after : mapping of Path to bytes or None
    """

    what: str
    before: Mapping[Path, bytes | None]
    after: Mapping[Path, bytes | None] = field(default_factory=dict)

    def undo(self) -> None:
        """Bring the files back; `UsageError` if one has been changed by somebody else since."""
        _exchange(self.after, self.before)

    def redo(self) -> None:
        """Do it again, on the same terms."""
        _exchange(self.before, self.after)


def is_own(preset: Preset) -> bool:
    """Whether a preset came from a file that is not the factory's."""
    return preset.path is not None and not preset.path.resolve().is_relative_to(presets.FACTORY.resolve())


def stands_in_front(path: Path) -> bool:
    """Whether a factory preset of the same name is hidden by this file."""
    return path.parent == presets.user_folder() and path.is_file() and (presets.FACTORY / path.name).is_file()


def save(preset: Preset, path: Path, what: str = "save") -> Change:
    """Write a preset, over what was there."""
    change = Change(f"{what} {preset.name}", _read(path))
    presets.save(preset, path)
    return replace(change, after=_read(path))


def rename(name: str, new: str) -> tuple[Change, Preset]:
    """Call a preset of one's own by another name; set list, morphs and rules of one's own that lead to it follow.

    Returns
    -------
    change : Change
    preset : Preset
        Under its new name.

    Raises
    ------
    UsageError
        If there is no such preset of one's own, or one of the new name already.
    """
    old = own_file(name)
    path = presets.own_path(new)
    if path.exists() and path != old:
        raise UsageError(f"there is a preset {path.stem} already")
    preset = replace(presets.load(name, "never"), name=new, path=path)
    order = setlist.load() if setlist.path().exists() else None
    followers = [p for p in _leading_to(old) if p.path != old]
    change = Change(f"rename {name}", _read(old, path, setlist.path(), *(p.path for p in followers if p.path)))
    try:
        presets.save(preset, path)
        if path != old:
            for follower in followers:
                assert follower.path is not None
                presets.save(_led(follower, old, path.stem), follower.path)
            if order is not None and any(_is(s.preset, old) for s in order.slots):
                slots = (replace(s, preset=path.stem) if _is(s.preset, old) else s for s in order.slots)
                setlist.save(replace(order, slots=tuple(slots)))
            old.unlink()
    except (RtganError, OSError):
        _write(change.before)
        raise
    return replace(change, after=_read(*change.before)), preset


def delete(name: str) -> Change:
    """Delete a preset of one's own.

    Raises
    ------
    UsageError
        If there is no such preset of one's own, or set list or another preset need it.
    """
    path = own_file(name)
    if not stands_in_front(path):
        leading = [p for p in _leading_to(path) if p.path != path]
        needing = [f"{p.name} morphs to it" for p in leading if p.morph and _is(p.morph, path)]
        needing += [f"a rule of {p.name} loads it" for p in leading if any(_loads(r, path) for r in p.rules)]
        if setlist.path().exists() and any(_is(s.preset, path) for s in setlist.load().slots):
            needing.append("the set list names it")
        if needing:
            raise UsageError(f"{name} is needed: {' and '.join(needing)}")
    change = Change(f"delete {name}", _read(path), {path: None})
    _write(change.after)
    return change


def own_file(name: str) -> Path:
    """The file of a preset of one's own; `UsageError` for what is none."""
    # Looked up among names, so that nothing that looks like one can lead out of the folder.
    if name in {p.stem for p in presets.user_folder().glob("*.yaml") if p.name[0] != "."}:
        return presets.user_folder() / f"{name}.yaml"
    if name in presets.names():
        raise UsageError(f"{name} is a factory preset and stays as it is; save it under a name of your own")
    raise UsageError(f"there is no preset of your own called '{name[:60]}'")


def _is(name: str, path: Path) -> bool:
    """Whether a preset's name, or path, leads to this file of one's own."""
    return Path(name).resolve() == path.resolve() if presets.by_path(name) else name == path.stem


def _leading_to(path: Path) -> list[Preset]:
    """Presets of one's own whose fader, or a rule of which, leads to this file."""
    found = []
    for file in sorted(presets.user_folder().glob("*.yaml")):
        try:
            preset = presets.load(str(file), "never")
        except RtganError:
            continue  # what cannot be read leads nowhere
        if (preset.morph and _is(preset.morph, path)) or any(_loads(rule, path) for rule in preset.rules):
            found.append(preset)
    return found


def _loads(rule: Rule, path: Path) -> bool:
    return bool(rule.load) and _is(rule.load, path)


def _led(preset: Preset, old: Path, name: str) -> Preset:
    """A preset whose fader and rules that led to a file lead to another name."""
    rules = tuple(replace(rule, load=name) if _loads(rule, old) else rule for rule in preset.rules)
    return replace(preset, rules=rules, morph=name if preset.morph and _is(preset.morph, old) else preset.morph)


def _read(*paths: Path) -> dict[Path, bytes | None]:
    try:
        return {path: path.read_bytes() if path.exists() else None for path in paths}
    except OSError as problem:
        raise RtganError(f"{problem.filename} cannot be read: {problem.strerror}") from None


def _write(files: Mapping[Path, bytes | None]) -> None:
    """Write first and take away last, so that what is named somewhere is there at any time."""
    for path, data in files.items():
        if data is not None:
            preset_text.write_bytes(path, data, "the file")
    for path, data in files.items():
        if data is None:
            try:
                path.unlink(missing_ok=True)
            except OSError as problem:
                raise RtganError(f"{path} cannot be deleted: {problem.strerror}") from None


def _exchange(present: Mapping[Path, bytes | None], wanted: Mapping[Path, bytes | None]) -> None:
    for path, data in _read(*present).items():
        if data != present[path]:
            raise UsageError(f"{path.name} has been changed since, so that this cannot be undone or done again")
    _write(wanted)
