"""The command line: parses, calls, prints. One file a command; no logic."""

from __future__ import annotations

import sys

import typer

from lucency.cli import (
    audit,
    bench,
    explain,
    reproduce,
    run,
    scan,
    screen,
    survival,
    sweep,
    verify,
    version,
    zoo,
)
from lucency.cli.answers import fail
from lucency.cli.options import INTERRUPTED
from lucency.errors import ConfigError, LucencyError

app = typer.Typer(
    help="Find backdoors in medical-imaging classifiers, show where, and measure how easily a "
    "pipeline can be backdoored.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
zoos = typer.Typer(help="Models with a known truth, to measure audits on.", no_args_is_help=True)
app.add_typer(zoos, name="zoo")
zoos.command("build")(zoo.build)
for command in (
    run.demo,
    run.run,
    sweep.sweep,
    reproduce.reproduce,
    audit.audit,
    scan.scan,
    explain.explain,
    survival.survival,
    screen.screen,
    verify.verify,
    version.version,
    bench.bench,
):
    app.command()(command)


def main() -> None:
    """Entry point: errors become one sentence and their exit code."""
    try:
        # Outside standalone mode an Exit comes back as a number.
        code = app(standalone_mode=False)
    except LucencyError as error:
        fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        # Typer's own usage errors carry their message and code; anything else is a fault of ours.
        shown = getattr(error, "format_message", None)
        if shown is None:
            raise
        fail(shown(), getattr(error, "exit_code", ConfigError.exit_code))
    if code == INTERRUPTED:
        fail("Interrupted; start the same command again to continue.", INTERRUPTED)
    sys.exit(code)
