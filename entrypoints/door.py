"""The door of every entry point: options made from settings, errors as one line, exit status."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
import typing

import click

from medtl.errors import MedtlError, ParameterError
from medtl.options import Settings


def command(settings_type: type[Settings], job: str, help_text: str) -> click.Command:
    """The command that reads `settings_type` from its options and hands it to the job.

    `job` is a module whose function of the same name does the work. It is imported when the
    options have been read and found good: PyTorch and MLflow take seconds, `--help` does not.
    """
    name = job.rpartition(".")[2]
    hints = typing.get_type_hints(settings_type)
    options = [_option(field, hints[field.name]) for field in dataclasses.fields(settings_type)]

    def run(**values: object) -> None:
        settings = settings_type(**values)
        getattr(importlib.import_module(job), name)(settings)

    return click.Command(name=name, params=options, callback=run, help=help_text)


def enter(entry_point: click.Command) -> typing.NoReturn:
    """Runs the command: exit status 0 done, 1 the work failed, 2 a parameter is wrong.

    A failure is one line on stderr, and in the tag `medtl.error` of the run that `mlflow run`
    handed over; a traceback appears only with MEDTL_DEBUG=1.
    """
    try:
        entry_point.main(standalone_mode=False)
    except click.UsageError as error:
        _refuse(error.format_message(), status=2)
    except ParameterError as error:
        _refuse(str(error), status=2)
    except MedtlError as error:
        _refuse(str(error), status=1)
    except (KeyboardInterrupt, click.Abort):
        _refuse("stopped by the user; the same command goes on from here", status=1)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        _refuse(f"{type(error).__name__}: {text}; MEDTL_DEBUG=1 shows where", status=1)
    sys.exit(0)


def _refuse(message: str, status: int) -> typing.NoReturn:
    if os.environ.get("MEDTL_DEBUG") == "1":
        traceback.print_exc()
    if os.environ.get("MLFLOW_RUN_ID"):
        # imported only where it is needed: a wrong parameter is answered at once
        from medtl.tracking.runs import refuse_run

        refuse_run(message)
    print(f"medtl: {message}", file=sys.stderr)
    sys.exit(status)


def _option(field: dataclasses.Field, hint: type) -> click.Option:
    """One option; `--image_size`, as MLflow writes a parameter it was not told of, works too."""
    choices = field.metadata["choices"]
    allowed = f" ({', '.join(choices)})" if choices else ""
    spellings = dict.fromkeys([f"--{field.name.replace('_', '-')}", f"--{field.name}"])
    return click.Option(
        [*spellings, field.name],
        type=click.BOOL if hint is bool else hint,
        default=field.default,
        help=field.metadata["meaning"] + allowed,
        show_default=True,
    )
