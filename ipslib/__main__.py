"""The command line: study, run, sweep, queue, gpu, notebooks and slides."""

import argparse
import os
import sys
from collections.abc import Sequence

from ipslib.commands.slides import add_slides_command
from ipslib.errors import IpslibError, did_you_mean

# Each handler imports what it calls, so that a machine without papermill can do the rest.


def _study(arguments: argparse.Namespace) -> int:
    from ipslib.commands.study import run_study

    settings = _settings(arguments)
    return run_study(
        arguments.profile, arguments.notebooks, parameters=settings, force=arguments.force
    )


def _run(arguments: argparse.Namespace) -> int:
    from ipslib.runs.naming import parse_run_name, run_name
    from ipslib.runs.profiles import Layout, base_config
    from ipslib.runs.records import RecordStore
    from ipslib.runs.schedule import run_all

    changes = parse_run_name(arguments.name) if arguments.name else {}
    changes |= _settings(arguments)
    config = base_config(arguments.profile, changes)
    store = RecordStore(Layout.of(arguments.profile).records)
    print(f"{run_name(config)} ({config.id}) on {config.data.source}", flush=True)
    [record] = run_all([config], store)
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
    changes = _settings(arguments)
    if arguments.list:
        return list_queue(arguments.profile, changes)
    return work_queue(arguments.profile, arguments.minutes, changes)


def _gpu(arguments: argparse.Namespace) -> int:
    from ipslib.commands.gpu import work_on_gpu

    return work_on_gpu(
        arguments.minutes,
        device=arguments.device,
        smoke=arguments.smoke,
        jobs=arguments.jobs,
        checks=not arguments.skip_checks,
        overrides=_settings(arguments),
    )


def _notebooks(arguments: argparse.Namespace) -> int:
    from ipslib.commands.study import pair_notebooks

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


def _add_settings(command: argparse.ArgumentParser, name: str, *, help: str) -> None:
    of = {"nargs": 2, "action": "append", "default": [], "dest": "parameters"}
    command.add_argument("-p", metavar=(name, "VALUE"), help=help, **of)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ipslib", description="A study of patch selection.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    study = commands.add_parser("study", help="execute the study's notebooks")
    study.add_argument("profile", metavar="PROFILE", help="smoke, quick or paper")
    study.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="name or number (all)")
    study.add_argument("--force", action="store_true", help="also run what is up to date")
    _add_settings(study, "NAME", help="override a parameter of the notebooks named")
    study.set_defaults(handler=_study)

    run = commands.add_parser(
        "run", help="train one run and write its record; needs no papermill and no jupytext"
    )
    run.add_argument("profile", metavar="PROFILE", help="smoke, quick or paper")
    run.add_argument("name", metavar="NAME", nargs="?", help="a run name as published")
    _add_settings(run, "FIELD", help="set a field of RunConfig")
    run.set_defaults(handler=_run)

    sweep = commands.add_parser("sweep", help="run all settings of a sweep file, see params/sweeps")
    sweep.add_argument("file", metavar="FILE", help="YAML with a grid or a list of settings")
    sweep.add_argument("--jobs", type=int, default=1, help="processes side by side (1: this one)")
    sweep.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask scheduler")
    sweep.set_defaults(handler=_sweep)

    queue = commands.add_parser(
        "queue", help="train missing published runs, the most valuable first"
    )
    queue.add_argument("--profile", default="paper", help="whose base settings (paper)")
    queue.add_argument("--minutes", type=float, default=25, help="time there is (25)")
    queue.add_argument("--list", action="store_true", help="only list the queue, in order")
    queue.add_argument("--readme", action="store_true", help="count the runs in outputs/README.md")
    _add_settings(queue, "FIELD", help="set a field of RunConfig in every run")
    queue.set_defaults(handler=_queue)

    gpu = commands.add_parser(
        "gpu", help="check a GPU, time a step on it, then work the queue of published runs"
    )
    gpu.add_argument("--minutes", type=float, default=25, help="time there is for all (25)")
    gpu.add_argument("--jobs", type=int, default=1, help="runs side by side on the GPU (1)")
    gpu.add_argument("--skip-checks", action="store_true", help="go straight to the runs")
    gpu.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: with --smoke")
    gpu.add_argument("--smoke", action="store_true", help="tiny images, to see that it runs")
    _add_settings(gpu, "FIELD", help="set a field of RunConfig in every run")
    gpu.set_defaults(handler=_gpu)

    pairing = commands.add_parser("notebooks", help="write notebooks/*.ipynb for JupyterLab")
    pairing.set_defaults(handler=_notebooks)
    add_slides_command(commands)
    parser.set_defaults(valid=tuple(commands.choices))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
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
