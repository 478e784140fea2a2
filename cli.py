"""The command line: picks the settings and the event loop, opens the house, closes it.

What is heavy is imported where it is needed, so that --help and --version answer at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import anyio

from runtime import __version__, log, settings
from runtime.errors import SettingsError, TroupeError
from runtime.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error of ours is one line on stderr and exit status 1."""
    try:
        arguments = vars(_parser().parse_args(argv))
        command = arguments.pop("command")
        return int(command(arguments))
    except TroupeError as error:
        log.say(f"troupe: {error}", logging.ERROR)
        return 1
    except KeyboardInterrupt:
        return 130


def serve(arguments: dict[str, object]) -> int:
    config = arguments.pop("config", None)
    chosen = settings.load(arguments, config=config if isinstance(config, Path) else None)
    log.configure(chosen.log_format, chosen.log_level)
    from api.dashboard import attached

    if chosen.dashboard:
        attached.check_terminal()
    from api import server
    from runtime.models.home import home
    from runtime.models.resolve import resolve

    files = resolve(chosen.model, say=log.say, trust_remote_code=chosen.trust_remote_code)
    with attached.log_aside(home() / "serve.log") if chosen.dashboard else nullcontext():
        anyio.run(server.serve, chosen, files, backend=chosen.event_loop)
    return 0


def top(arguments: dict[str, object]) -> int:
    from api.dashboard import app, feed
    from api.dashboard.screen import make_console

    url, key, until_closed = arguments["url"], arguments["api_key"], arguments["until_closed"]
    key = str(key) if key else os.environ.get(settings.variable("api_key"))
    server = feed.Server(feed.server_url(str(url)), key, feed.interval(str(arguments["interval"])))
    console = make_console(no_color=bool(arguments["no_color"]))
    anyio.run(app.show, server, console, until_closed if isinstance(until_closed, int) else None)
    return 0


def models(_arguments: dict[str, object]) -> int:
    from runtime.models.catalog import list_models

    for model in list_models():
        print(f"{model.name}  ({model.kind}, {model.bytes / 1e6:.0f} MB)")
    return 0


def pull(arguments: dict[str, object]) -> int:
    from runtime.models.resolve import resolve

    files = resolve(
        str(arguments["model"]), say=log.say, trust_remote_code=bool(arguments.get("trust_remote_code", False))
    )
    print(f"{files.model_id} is ready to be served.")
    return 0


def doctor(arguments: dict[str, object]) -> int:
    from api.doctor import run

    model, url, key = (str(given) if (given := arguments[name]) else None for name in ("model", "url", "api_key"))
    key = key or os.environ.get(settings.variable("api_key"))
    question = run.Question(model, url, key, trust_remote_code=bool(arguments["trust_remote_code"]))
    return run.doctor(question, json=bool(arguments["json"]))


def bench(arguments: dict[str, object]) -> int:
    from api.bench import run

    url, write, against = arguments["url"], arguments["write"], arguments["against"]
    if isinstance(url, str):
        run.running(url, str(arguments["model"]), against if isinstance(against, Path) else None)
    else:
        run.side_by_side(write if isinstance(write, Path) else None)
    return 0


# --- the parser ---


class _Parser(argparse.ArgumentParser):
    """Its errors are errors of ours, without the whole usage before them."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="troupe", description="An inference server for MLX models, made of actors.")
    parser.add_argument("--version", action="version", version=f"troupe {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over the OpenAI API"))
    _add_launch(commands.add_parser("launch", help="the same as serve, with --model-path and --model-type"))
    listing = commands.add_parser("models", help="list the models that are on this machine")
    listing.set_defaults(command=models)
    fetching = commands.add_parser("pull", help="fetch a model ahead of serving it")
    fetching.add_argument("model", metavar="MODEL", help="a Hugging Face repository id, a GGUF file, or `default`")
    fetching.add_argument("--trust-remote-code", action="store_true", help="accept model code that comes with it")
    fetching.set_defaults(command=pull)
    _add_top(commands.add_parser("top", help="watch a server that runs"))
    _add_doctor(commands.add_parser("doctor", help="say what is installed, found and slow, and what mends it"))
    _add_bench(commands.add_parser("bench", help="measure a server, or this one beside mlx_lm.server"))
    return parser


def _add_top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", nargs="?", metavar="URL", default="http://127.0.0.1:8000", help="the server (default: %(default)s)"
    )
    parser.add_argument("--api-key", metavar="KEY", help="its key, if it has one; else $TROUPE_API_KEY")
    parser.add_argument("--interval", metavar="S", default="1", help="seconds between two pictures (default: 1)")
    parser.add_argument("--no-color", action="store_true", help="without colours, as with $NO_COLOR")
    parser.add_argument("--until-closed", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.set_defaults(command=top)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="also look at this model; nothing is fetched or loaded"
    )
    parser.add_argument("--url", metavar="URL", help="also ask the server that runs there how it is")
    parser.add_argument("--api-key", metavar="KEY", help="its key, if it has one; else $TROUPE_API_KEY")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--trust-remote-code", action="store_true", help="accept code that comes with the model")
    parser.set_defaults(command=doctor)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", nargs="?", metavar="URL", help="an OpenAI-compatible server that runs already")
    parser.add_argument("--model", default="default", help="the model's name on that server (default: default)")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="with a URL: also measure mlx_lm.server on this model, print ratios"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="with no URL: where to write the tables")
    parser.set_defaults(command=bench)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", default=argparse.SUPPRESS, help=Settings.model_fields["model"].description
    )
    _add_settings(parser)


def _add_launch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-path",
        dest="model",
        metavar="MODEL",
        default=argparse.SUPPRESS,
        help=Settings.model_fields["model"].description,
    )
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """One flag per setting; a flag that is not given leaves the word to environment, file and default.

    Values are judged by Settings, wherever they come from; a choice of words is only shown here.
    """
    parser.set_defaults(command=serve)
    parser.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, help="a TOML file of settings, by their names with _"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, field in Settings.model_fields.items():
        if name == "model":
            continue
        title = field.title or ""
        group = groups.setdefault(title, parser.add_argument_group(title) if title not in groups else groups[title])
        flags = [settings.flag(spelling) for spelling in settings.names(name, field)]
        text = f"{field.description} (default: {settings.shown(field.default)})".replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(
                *flags, dest=name, default=argparse.SUPPRESS, help=text, action=argparse.BooleanOptionalAction
            )
        else:
            group.add_argument(
                *flags,
                dest=name,
                default=argparse.SUPPRESS,
                help=text,
                metavar=_placeholder(name, settings.choices(field)),
            )


def _placeholder(name: str, choices: Sequence[str]) -> str:
    """What --help shows for a setting's value."""
    return f"{{{','.join(choices)}}}" if choices else name.rsplit("_", 1)[-1].upper()


if __name__ == "__main__":
    sys.exit(main())
