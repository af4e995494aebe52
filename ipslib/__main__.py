"""The command line: images of one's own, the study and what it is made of."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ipslib.commands.images import add_image_commands
from ipslib.commands.slides import add_slides_command
from ipslib.errors import IpslibError, did_you_mean

# Each handler imports what it calls, so that a machine without papermill can do the rest.


def _study(arguments: argparse.Namespace) -> int:
    from ipslib.commands.study import run_study

    changes, force = _settings(arguments), arguments.force
    return run_study(arguments.profile, arguments.notebooks, parameters=changes, force=force)


def _run(arguments: argparse.Namespace) -> int:
    from ipslib.runs.profiles import Layout, base_config
    from ipslib.runs.provenance import parse_run_name, run_name
    from ipslib.runs.records import RecordStore
    from ipslib.runs.schedule import run_all

    changes = parse_run_name(arguments.name) if arguments.name else {}
    config = base_config(arguments.profile, changes | _settings(arguments))
    print(f"{run_name(config)} ({config.id}) on {config.data.source}", flush=True)
    [record] = run_all([config], RecordStore(Layout.of(arguments.profile).records))
    for task, accuracy in record["result"]["accuracy"].items():
        print(f"{task:>10}: {100 * accuracy:5.1f} %")
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from ipslib.commands.sweep import run_sweep

    result = run_sweep(arguments.file, jobs=arguments.jobs, scheduler=arguments.scheduler)
    print(result)
    return int(result.n_failed > 0)


def _queue(arguments: argparse.Namespace) -> int:
    from ipslib.commands.queue import list_queue, work_queue

    if arguments.readme:
        from ipslib.paths import project_root
        from ipslib.study.published_configs import renew_project_readme

        return renew_project_readme(project_root())
    changes, category = _settings(arguments), arguments.category
    if arguments.list:
        return list_queue(arguments.profile, changes, category=category)
    return work_queue(arguments.profile, arguments.minutes, changes, category=category)


def _gpu(arguments: argparse.Namespace) -> int:
    from ipslib.commands.gpu import work_on_gpu

    names = ("device", "smoke", "jobs", "checks", "category")
    options = {name: getattr(arguments, name) for name in names}
    return work_on_gpu(arguments.minutes, overrides=_settings(arguments), **options)


def _notebooks(_: argparse.Namespace) -> int:
    from ipslib.commands.notebooks import pair_notebooks

    for path in pair_notebooks():
        print(f"wrote {path.parent.name}/{path.name}")
    return 0


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What `-p` sets, each name once."""
    from ipslib.runs.profiles import parse_value

    values = {}
    for name, value in arguments.parameters:
        if name in values:
            raise IpslibError(f"-p {name}: wanted one value, got two; leave one out.")
        values[name] = parse_value(value)
    return values


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, and takes no option by its beginning alone."""

    def __init__(self, **options) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, *arguments, **options) -> tuple[argparse.Namespace, list[str]]:
        namespace, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            hint = did_you_mean(unknown[0], self._option_string_actions)
            self.error(f"there is no option {unknown[0]!r}{hint}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        raise IpslibError(f"{message}; `{self.prog} --help` says more")


def _parser(chosen: str = "") -> argparse.ArgumentParser:
    """The parser of a command; of others too, to name them."""
    parser = _Parser(prog="ipslib", description="Iterative patch selection.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, handler, *, changes: tuple[str, str] | None = None, help: str):
        """A command's `add_argument`; with `-p` where it takes changes, a name and what they do."""
        added = commands.add_parser(name, help=help)
        added.set_defaults(handler=handler)
        if changes:
            of = {"nargs": 2, "action": "append", "default": [], "dest": "parameters"}
            added.add_argument("-p", metavar=(changes[0], "VALUE"), help=changes[1], **of)
        return added.add_argument

    of_notebooks = ("NAME", "override a parameter of the notebooks named")
    of_run = ("FIELD", "set a field of RunConfig")
    of_every_run = ("FIELD", "set a field of RunConfig in every run")
    profile = {"metavar": "PROFILE", "help": "smoke, quick, overnight or paper"}

    add = command("study", _study, changes=of_notebooks, help="execute the study's notebooks")
    add("profile", **profile)
    add("notebooks", metavar="NOTEBOOK", nargs="*", help="name or number (all)")
    add("--force", action="store_true", help="also run what is up to date")

    does = "train one run and write its record; needs no papermill and no jupytext"
    add = command("run", _run, changes=of_run, help=does)
    add("profile", **profile)
    add("name", metavar="NAME", nargs="?", help="a run name as published")

    add = command("sweep", _sweep, help="run all settings of a sweep file, see params/sweeps")
    add("file", metavar="FILE", help="YAML with a grid or a list of settings")
    add("--jobs", type=int, default=1, help="processes side by side (1: this one)")
    add("--scheduler", metavar="ADDRESS", help="of a running Dask scheduler")

    does = "train missing published runs, the most valuable first"
    add = command("queue", _queue, changes=of_every_run, help=does)
    add("--profile", default="paper", help="whose base settings (paper)")
    add("--minutes", type=float, default=25, help="time there is (25)")
    add("--category", metavar="NAME", help="such as Attention_Masking (all)")
    add("--list", action="store_true", help="only list the queue, in order")
    add("--readme", action="store_true", help="count the runs in outputs/README.md")

    does = "check a GPU, time a step on it, then work the queue of published runs"
    add = command("gpu", _gpu, changes=of_every_run, help=does)
    add("--minutes", type=float, default=25, help="time there is for all (25)")
    add("--category", metavar="NAME", help="such as Attention_Masking (all)")
    add("--jobs", type=int, default=1, help="runs side by side (1); 4 keep a GPU busy")
    add("--skip-checks", dest="checks", action="store_false", help="go straight to the runs")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: with --smoke")
    add("--smoke", action="store_true", help="tiny images, to see that it runs")

    command("notebooks", _notebooks, help="write notebooks/*.ipynb for JupyterLab")
    add_slides_command(commands)
    add_image_commands(commands, chosen)
    parser.set_defaults(valid=tuple(commands.choices))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(*arguments[:1])
    valid = parser.get_default("valid")
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in valid:
            hint = did_you_mean(arguments[0], valid)
            raise IpslibError(f"there is no command {arguments[0]!r}{hint}")
        chosen = parser.parse_args(arguments)
        status = chosen.handler(chosen)
        sys.stdout.flush()
        return status
    except IpslibError as error:
        print(f"ipslib: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("ipslib: stopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
