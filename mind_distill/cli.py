"""The `mind` command: parses, runs one verb of `commands/`, and tells how it ended. Heavy imports wait for the verb."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from types import FrameType

from mind_distill import __version__
from mind_distill.commands import compare, corpus, evaluate, journal, latent, report, serve, train
from mind_distill.commands.base import Verbs
from mind_distill.errors import Stopped, Terminated, UserError
from mind_distill.terminal import face
from mind_distill.threads import stop_spinning


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs one verb and exits with its status."""
    stop_spinning()  # before any verb imports torch
    # what one library must change in its calls of another is nothing that a user can act on
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one verb; 0 done, 1 our fault, 2 the user's mistake, 3 stopped and resumable, 130 Ctrl-C, 143 terminated."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    shown = face(options.quiet, options.json)
    try:
        options.verb(options, shown)
    except UserError as problem:
        return _complain(f"mind: {problem}", problem.exit_status)
    except Stopped as problem:
        return _complain(f"mind: {problem}{_how_to_resume(options)}", problem.exit_status)
    except Terminated as problem:
        return _complain(f"mind: terminated.{_how_to_resume(options)}", problem.exit_status)
    except KeyboardInterrupt:
        return _complain(f"\nmind: stopped by Ctrl-C.{_how_to_resume(options)}", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone; nothing to report
        return 0
    except Exception:
        traceback.print_exc()
        return _complain("mind: this is a fault of the program, not of your input; please report the lines above.", 1)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one verb; key=value settings may stand anywhere after it."""
    parser = _parser()
    options, extra = parser.parse_known_args(arguments)
    unknown = [word for word in extra if word.startswith("-") or "=" not in word]
    if extra and (unknown or not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or extra)}")
    if extra:
        options.overrides = [*options.overrides, *extra]
    return options


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _complain(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return status


def _how_to_resume(options: argparse.Namespace) -> str:
    line = getattr(options, "resume_line", None)
    return f" Continue with:\n  {line}" if line else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mind", description="Capability-aware multi-perspective chain-of-thought distillation."
    )
    parser.add_argument("--version", action="version", version=f"mind-distill {__version__}")
    verbs = Verbs(parser)
    for group in (train, evaluate, compare, latent, corpus, journal, report, serve):
        group.add(verbs)
    return parser


if __name__ == "__main__":
    main()
