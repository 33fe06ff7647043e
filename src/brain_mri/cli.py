"""The project's own commands beside Kedro's: `kedro check`, `cluster`, `download`, `predict` and `report`.

In these and in `kedro run`, an error that is written for people is shown as its sentence alone;
`BRAIN_MRI_TRACEBACK=1` shows the stack too.
"""

from __future__ import annotations

import copy
import functools
import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.utils import find_kedro_project

from brain_mri.cluster.commands import cluster

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext

TRACEBACK_VARIABLE = "BRAIN_MRI_TRACEBACK"
_ENVIRONMENT = click.option("--env", "-e", help="Configuration environment: local (default) or cluster.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """From a folder of brain MRI scans to a trained, measured tumour classifier."""


def _errors_for_people(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error that is a sentence without the stack above it."""

    @functools.wraps(command)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except Exception as error:
            if os.environ.get(TRACEBACK_VARIABLE) or not _is_written_for_people(error):
                raise
            raise click.ClickException(_sentence(error)) from error

    return call


def _sentence(error: BaseException) -> str:
    """The message; of an error of ours that Kedro wrapped, the inner one, which has what a person needs."""
    cause = error.__cause__
    ours = cause is not None and type(cause).__module__.startswith("brain_mri.")
    return _sentence(cause) if isinstance(error, DatasetError) and cause is not None and ours else str(error)


def _is_written_for_people(error: BaseException) -> bool:
    """Whether the message alone says what is wrong: our errors, and what Kedro says of a dataset.

    Kedro wraps whatever a dataset raises in a `DatasetError`. Where that was a fault of the program, the
    stack is needed to find it.
    """
    if isinstance(error, DatasetError):
        cause = error.__cause__
        return cause is None or isinstance(cause, OSError) or _is_written_for_people(cause)
    return type(error).__module__.startswith(("brain_mri.", "kedro.validation."))


run = copy.copy(kedro_run)
assert run.callback is not None
run.callback = _errors_for_people(run.callback)
cli.add_command(run)

for command in cluster.commands.values():
    assert command.callback is not None
    command.callback = _errors_for_people(command.callback)
cli.add_command(cluster)


@cli.command()
@_ENVIRONMENT
@_errors_for_people
def check(env: str | None) -> None:
    """Look at versions, machine, data source and Spark; each with a remedy."""
    from brain_mri.check import format_checks, run_checks

    context = _context(env)
    checks = run_checks(lambda: _describe_source(context), _run_spark_task, _storage(context))
    print(format_checks(checks))
    sys.exit(0 if all(entry.ok for entry in checks) else 1)


@cli.command()
@click.option(
    "--target", type=click.Path(path_type=Path), help="Where to; default data/01_raw/brain-tumor-mri."
)
@_errors_for_people
def download(target: Path | None) -> None:
    """Fetch the public data set through Kaggle's own client and count it."""
    from brain_mri.download import download_kaggle

    print(download_kaggle(target or _project() / "data" / "01_raw" / "brain-tumor-mri"))


@cli.command()
@_ENVIRONMENT
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Copy the report to this file."
)
@click.option("--open/--no-open", "show", default=True, help="Whether to open it in the browser.")
@_errors_for_people
def report(env: str | None, output: Path | None, show: bool) -> None:
    """Open the report of the last run, or copy it, from HDFS too."""
    from brain_mri.storage.files import open_filesystem, read_file
    from brain_mri.storage.retry import no_repeats

    storage = _storage(_context(env))
    location = f"{storage}/08_reporting/report.html"
    try:
        filesystem, path = open_filesystem(location)
        with no_repeats():
            found = filesystem.exists(path)
    except (OSError, ImportError) as error:  # no Hadoop on this machine, no NameNode at the address
        raise click.ClickException(f"{location} cannot be reached: {error}") from error
    if not found:
        raise click.ClickException(f"There is no report at {location}. Make one with `kedro run`.")
    page = Path(path)
    if output or "://" in storage:
        page = output or Path("report.html")
        page.write_bytes(read_file(filesystem, path))
    print(f"Report: {page.resolve()}")
    if show and sys.stdout.isatty():
        webbrowser.open(page.resolve().as_uri())


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@_ENVIRONMENT
@click.option("--version", help="Of the classifier; default the latest.")
@click.option("--output", help="Where the table goes; default 07_model_output under the storage root.")
@click.option(
    "--explain",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a picture a file into this folder: what spoke for its class.",
)
@click.option("--csv", "form", flag_value="csv", help="Print the table as CSV, and nothing else.")
@click.option("--json", "form", flag_value="json", help="Print the table as JSON, and nothing else.")
@_errors_for_people
def predict(  # noqa: PLR0917 - a parameter an option
    paths: tuple[str, ...],
    env: str | None,
    version: str | None,
    output: str | None,
    explain: Path | None,
    form: str | None,
) -> None:
    """Say what each PATH shows: a file, a folder of any depth, or a URL such as hdfs:///scans."""
    import pandas as pd
    from kedro.framework.startup import bootstrap_project
    from kedro.io import Version

    from brain_mri import predict as predicting
    from brain_mri.datasets.versions import VersionedFolderDataset
    from brain_mri.pipelines.inference.nodes import list_source
    from brain_mri.pipelines.ingestion.parameters import IngestionParameters

    bootstrap_project(_project())
    given: dict[str, Any] = {"source": list(paths)} | ({"output": output} if output else {})
    session = KedroSession.create(_project(), env=env, runtime_params={"inference": given})
    with session:
        session.run(pipeline_names=["inference"], load_versions={"classifier": version} if version else None)
        context = session.load_context()
    scores = context.catalog.load("scores")
    writers = {"csv": predicting.write_csv, "json": predicting.write_json, None: predicting.write_text}
    writers[form](scores, sys.stdout)
    if explain:
        folder = f"{_storage(context)}/06_models/classifier"
        used = Version(scores.summary["model_version"], None)
        classifier = VersionedFolderDataset(filepath=folder, version=used).load()
        limits = IngestionParameters.model_validate(context.config_loader["parameters"]["ingestion"]).limits
        listed = pd.concat([list_source(path) for path in paths])
        urls = dict(zip(listed["path"], listed["url"], strict=True))
        predicting.write_explanations(scores, classifier, explain, urls, limits.limits())
    if not scores.summary["scored"]:
        raise click.ClickException("No file could be scored; the table says why.")


def _project() -> Path:
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def _context(env: str | None) -> KedroContext:
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(_project())
    session = KedroSession.create(_project(), env=env)
    with session:
        return session.load_context()


def _storage(context: KedroContext) -> str:
    """The storage root; a relative one starts from the project, wherever the command is typed."""
    storage = str(context.config_loader["globals"]["storage"])
    return storage if "://" in storage else str(_project() / storage)


def _describe_source(context: KedroContext) -> str:
    """Which source a run would take, and how it is laid out."""
    from brain_mri.cohort.layout import read_folder_layout
    from brain_mri.datasets.source import RawFolder, list_files
    from brain_mri.pipelines.ingestion.parameters import IngestionParameters

    parameters = IngestionParameters.model_validate(context.config_loader["parameters"]["ingestion"])
    raw: RawFolder = context.catalog.load("raw")
    source = raw.choose(parameters.source)
    if source.kind == "table" or (source.kind == "phantom" and parameters.source is None):
        return f"{source.kind} {source.url}, because {source.why}"
    layout = read_folder_layout(list_files(source)["path"], parameters.class_set())
    return f"{source.url}, because {source.why}: {len(layout.files)} files, {layout.description}"


def _run_spark_task() -> str:
    """Run one task on the session of the environment."""
    from brain_mri.spark.session import get_session

    spark = get_session()
    answer = spark.range(3).count()
    if answer != 3:
        raise RuntimeError(f"Spark counted {answer} of 3 rows.")
    return f"Spark {spark.version} on {spark.sparkContext.master} answers"
