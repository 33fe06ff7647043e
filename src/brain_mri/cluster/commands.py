"""`kedro cluster`: start, look at, check and stop a cluster."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path
from typing import Any

import click
from kedro.utils import find_kedro_project

from brain_mri.cluster.connection import cluster_folder, use_cluster
from brain_mri.cluster.options import ClusterOptions
from brain_mri.cluster.ports import PREFERRED_PORTS, port_option

_ENVIRONMENT = click.option(
    "--env", "-e", default="cluster", show_default=True, help="Configuration environment."
)
_PORT = click.IntRange(0, 65535)
_SPARK_PAGE = click.option(
    "--spark-page", metavar="HOST:PORT", help="The Spark master's web page; default its host with port 8080."
)


@click.group()
def cluster() -> None:
    """A real HDFS and a real Spark cluster: start one here, look at any."""


def _port_options(command: Any) -> Any:
    for name, port in reversed(PREFERRED_PORTS.items()):
        help_text = f"Default {port}, or another where that is taken; 0: any."
        command = click.option(port_option(name), type=_PORT, help=help_text)(command)
    return command


@cluster.command()
@click.option("--datanodes", type=int, help=f"Number of DataNodes; default {ClusterOptions.datanodes}.")
@click.option(
    "--replication", type=int, help=f"DataNodes that hold each block; default {ClusterOptions.replication}."
)
@click.option("--workers", type=int, help=f"Number of workers; default {ClusterOptions.workers}.")
@click.option("--yarn", is_flag=True, default=None, help="YARN in place of Spark's own master and workers.")
@click.option("--worker-memory", help=f"What a worker offers; default {ClusterOptions.worker_memory}.")
@click.option("--worker-cores", type=int, help="Cores a worker offers; default its share of this machine's.")
@click.option("--namenode-memory", help=f"Its Java heap; default {ClusterOptions.namenode_memory}.")
@click.option("--datanode-memory", help=f"Its Java heap; default {ClusterOptions.datanode_memory}.")
@_port_options
def up(**options: Any) -> None:
    """Start HDFS and Spark (or YARN) on this machine; a second time is harmless."""
    from brain_mri.cluster.local import up

    given = {name: value for name, value in options.items() if value is not None}
    ports = {name: given.pop(f"{name}_port") for name in PREFERRED_PORTS if f"{name}_port" in given}
    cluster = up(_folder(), {**given, **({"ports": ports} if ports else {})}, click.echo)
    click.echo(cluster.describe())


@cluster.command()
def down() -> None:
    """Stop what `up` started; the data stays."""
    from brain_mri.cluster.local import down

    down(_folder(), click.echo)


@cluster.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(yes: bool) -> None:
    """Stop what `up` started and remove its HDFS with everything in it."""
    from brain_mri.cluster.local import clean

    if not yes:
        click.confirm(f"Remove the HDFS in {_folder()} with everything in it?", abort=True)
    clean(_folder(), click.echo)


@cluster.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def fs(arguments: tuple[str, ...]) -> None:
    """Hadoop's own shell on the cluster in use, for example `kedro cluster fs -ls -R /user`."""
    from brain_mri.cluster.shell import run_shell

    use_cluster(_project())
    sys.exit(run_shell(arguments))


@cluster.command()
@_ENVIRONMENT
@click.option("--json", "as_json", is_flag=True, help="For programs; see cluster.health.cluster_status.")
@_SPARK_PAGE
def status(env: str, as_json: bool, spark_page: str | None) -> None:
    """Say how HDFS and the workers are; the exit status tells whether they answer."""
    from brain_mri.cluster.environment import find_spark_page, load_environment
    from brain_mri.cluster.health import cluster_status, format_status
    from brain_mri.storage.hadoop import read_properties

    master = load_environment(_project(), env).master
    found = cluster_status(read_properties(), master, spark_page or find_spark_page(_project(), master))
    click.echo(json.dumps(found, indent=2) if as_json else format_status(found))
    sys.exit(1 if found["problems"] else 0)


@cluster.command()
@_ENVIRONMENT
@_SPARK_PAGE
def check(env: str, spark_page: str | None) -> None:
    """Go through an environment step by step before a run; each step with a remedy."""
    from brain_mri.check import format_checks
    from brain_mri.cluster.checks import run_cluster_checks
    from brain_mri.cluster.environment import find_spark_page, load_environment

    checks = run_cluster_checks(
        lambda: load_environment(_project(), env),
        lambda master: spark_page or find_spark_page(_project(), master),
    )
    click.echo(format_checks(checks))
    sys.exit(0 if all(entry.ok for entry in checks) else 1)


@cluster.command()
@_ENVIRONMENT
@click.option("--port", type=_PORT, default=18080, show_default=True, help="Another one where it is taken.")
@click.option("--open/--no-open", "show", default=True, help="Whether to open it in the browser.")
def history(env: str, port: int, show: bool) -> None:
    """Show what Spark's applications did, in its history server, until Ctrl-C."""
    from brain_mri.cluster.environment import load_environment
    from brain_mri.cluster.history import serve_history

    with serve_history(load_environment(_project(), env).event_log, port) as (server, address):
        click.echo(f"Spark's history: {address} (Ctrl-C ends it)")
        if show and sys.stdout.isatty():
            webbrowser.open(address)
        sys.exit(server.wait())


def _project() -> Path:
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def _folder() -> Path:
    return cluster_folder(_project())
