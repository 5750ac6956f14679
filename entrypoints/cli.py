"""Command line of every entry point: options from settings, errors as one line, exit status."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import sys
import time
import traceback
import typing
from functools import partial
from types import FrameType

import click

from medtl.errors import MedtlError, ParameterError, without_secrets
from medtl.settings.fields import Settings

# Ctrl-C, and the signal of a cluster's scheduler before it kills
STOPS = (signal.SIGINT, signal.SIGTERM)
# A stop waits for the end of a database write: seconds between two checks, and at most.
LOOK, PATIENCE = 0.05, 5.0
# entry points that support several processes started by torchrun
TOGETHER = ("train",)
# suffixes of environment variables that hold URLs: MLFLOW_TRACKING_URI, HTTPS_PROXY ...
URL_NAMES = ("_URI", "_URL", "_PROXY")


def command(settings_type: type[Settings], name: str, help_text: str) -> click.Command:
    """Builds the command whose options are the fields of `settings_type`.

    It calls the function `name` of `medtl.commands.NAME`, which is imported after the options have
    been parsed and checked: importing PyTorch and MLflow takes seconds, `--help` does not.
    """
    hints = typing.get_type_hints(settings_type)
    options: list[click.Parameter] = [
        _option(field, hints[field.name]) for field in dataclasses.fields(settings_type)
    ]

    def run(**values: object) -> None:
        settings = settings_type(**values)
        _check_processes(name)
        getattr(importlib.import_module(f"medtl.commands.{name}"), name)(settings)

    return click.Command(name=name, params=options, callback=run, help=help_text)


def enter(entry_point: click.Command) -> typing.NoReturn:
    """Runs the command: exit status 0 done, 1 the work failed, 2 a parameter is wrong.

    An error is one line on stderr, and in the tag `medtl.error` of the run that `mlflow run`
    created; a traceback appears only with MEDTL_DEBUG=1. After Ctrl-C and SIGTERM all runs are
    closed as KILLED.
    """
    _listen(_stop)
    try:
        entry_point.main(standalone_mode=False)
    except click.UsageError as error:
        _leave_it_to_the_first()
        _refuse(error.format_message(), status=2)
    except ParameterError as error:
        _leave_it_to_the_first()
        _refuse(str(error), status=2)
    except MedtlError as error:
        _refuse(str(error), status=1)
    except (KeyboardInterrupt, click.Abort):
        _refuse("stopped; the same command goes on from here", status=1, run_status="KILLED")
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        _refuse(f"{type(error).__name__}: {text}; MEDTL_DEBUG=1 shows where", status=1)
    sys.exit(0)


def _listen(handler: typing.Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for each in STOPS:
        # a shell sets Ctrl-C to be ignored by background jobs, which is kept
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, handler)


def _stop(number: int, frame: FrameType | None, asked: float | None = None) -> None:
    asked = asked or time.monotonic()
    if _is_in_database(frame) and time.monotonic() - asked < PATIENCE:
        # an interrupted write would lock the store, and no run could be closed
        signal.signal(signal.SIGALRM, partial(_stop, asked=asked))
        signal.setitimer(signal.ITIMER_REAL, LOOK)
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    _listen(_be_patient)
    raise KeyboardInterrupt


def _is_in_database(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("sqlalchemy."):
            return True
        frame = frame.f_back
    return False


def _be_patient(number: int, frame: FrameType | None) -> None:
    """Handles a second signal while runs are being closed; a third one ends the process."""
    _listen(signal.SIG_DFL)
    # not print, which may have been interrupted
    os.write(2, b"medtl: stopping, the runs are being closed; once more ends at once\n")


def _refuse(message: str, status: int, run_status: str = "FAILED") -> typing.NoReturn:
    message = without_secrets(message, *_typed())
    if os.environ.get("MEDTL_DEBUG") == "1":
        print(without_secrets(traceback.format_exc(), *_typed()), file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        # imported on demand: a wrong parameter is reported at once
        from medtl.tracking.runs import refuse_run

        refuse_run(message, run_status)
    print(f"medtl: {message}", file=sys.stderr)
    if run_status == "KILLED":
        # runs are closed: a second Ctrl-C while the interpreter ends keeps the status
        _listen(signal.SIG_IGN)
    sys.exit(status)


def _typed() -> list[str]:
    """Returns the values of command line and environment that may contain a password."""
    values = [argument.partition("=")[2] for argument in sys.argv[1:] if argument[:2] == "--"]
    named = [value for name, value in os.environ.items() if name.upper().endswith(URL_NAMES)]
    return [*sys.argv[1:], *values, *named]


def _check_processes(name: str) -> None:
    """Refuses several processes for an entry point that runs in one."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" not in os.environ or size == 1 or name in TOGETHER:
        return
    _leave_it_to_the_first()
    remedy = "; give workers" if name == "tune" else ""
    raise MedtlError(
        f"{name} is work for one process, and torchrun has started {size}: start it without{remedy}"
    )


def _leave_it_to_the_first() -> None:
    """Ends this process silently unless it is rank 0, which reports the error."""
    if os.environ.get("RANK", "0") != "0":
        sys.exit(0)


def _option(field: dataclasses.Field, hint: type) -> click.Option:
    """Builds an option; `--image_size`, MLflow's spelling, is accepted beside `--image-size`."""
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
