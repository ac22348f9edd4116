"""``rtgan ctl``: the panel's HTTP interface from the shell."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from rtgan.errors import RtganError, UsageError
from rtgan.panel import commands
from rtgan.preset_text import config_folder

_TIMEOUT_S = 35.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan ctl``."""
    parser.add_argument("--panel", metavar="URL", help="the address that `rtgan live` printed (default: the last one)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    get = actions.add_parser("get", help="a parameter's value, or all of them")
    get.add_argument("name", nargs="?", metavar="PLUGIN.PARAM|host.NAME")
    tell = actions.add_parser("tell", help="what the panel knows, as JSON")
    tell.add_argument("topic", choices=tuple(commands.TOPICS))
    for name, command in commands.COMMANDS.items():
        action = actions.add_parser(name, help=command.summary)
        for key, argument in command.arguments.items():
            how: dict[str, Any] = {} if argument.default is ... else {"nargs": "?", "default": argument.default}
            action.add_argument(
                key, help=argument.description.replace("%", "%%"), choices=argument.choices or None, **how
            )


def run(args: argparse.Namespace) -> int:
    """Carry out one action."""
    base, token = _where(args.panel)
    if args.action == "get":
        values = _ask(base, token, "values")
        if args.name is None:
            for name, value in values.items():
                print(f"{name} {value:g}")
        elif args.name in values:
            print(f"{values[args.name]:g}")
        else:
            raise UsageError(f"there is no parameter '{args.name}'; known are: {', '.join(values)}")
    elif args.action == "tell":
        print(json.dumps(_ask(base, token, args.topic), indent=2))
    else:
        command = commands.COMMANDS[args.action]
        given = {k: _value(argument, str(getattr(args, k)), k) for k, argument in command.arguments.items()}
        _ask(base, token, args.action, given)
    return 0


def _value(argument: commands.Argument, text: str, where: str) -> Any:
    """What a word of the shell stands for."""
    if "boolean" in argument.kinds and text.lower() in ("on", "off", "true", "false"):
        return text.lower() in ("on", "true")
    for kind, convert in (("integer", int), ("number", float)):
        if kind in argument.kinds:
            try:
                return argument.check(convert(text), where)
            except ValueError:
                continue
    return argument.check(text, where)


def _where(given: str | None) -> tuple[str, str]:
    """Address and token of the panel."""
    if given is None:
        file = config_folder() / "panel.json"
        try:
            given = str(json.loads(file.read_text("utf-8"))["url"])
        except FileNotFoundError:
            raise RtganError("no `rtgan live` with a panel is running") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise RtganError(f"{file} cannot be read; give the address with --panel") from None
    base, _, token = given.partition("/#")
    if not base.startswith("http://") or not token:
        raise UsageError(f"'{given}' is not the address of a panel; it looks like http://127.0.0.1:8020/#TOKEN")
    return base, token


def _ask(base: str, token: str, what: str, given: Mapping[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = None if given is None else json.dumps(given).encode()
    # No proxy of the environment stands between two programs of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(f"{base}/api/{what}", body, headers), timeout=_TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as problem:
        try:
            said = str(json.loads(problem.read())["error"])
        except (ValueError, KeyError, TypeError):
            said = f"the panel answers with status {problem.code}"
        raise (UsageError if problem.code == 400 else RtganError)(said) from None
    except (OSError, ValueError) as problem:
        raise RtganError(f"the panel at {base} does not answer: {getattr(problem, 'reason', problem)}") from None
