"""The one door: `eelbert JOB --config=FILE[:recipe] --config.KEY=VALUE --workdir=DIR`.

Picks a job and turns errors into exit statuses; help is answered without importing a job, and so without JAX.
"""

import importlib
import io
import os
import sys
from pathlib import Path

from eelbert_jax import cli, memory
from eelbert_jax.errors import Preempted, TryAgain, UserError, absent_platform, missing_setting, unknown

COMPILED = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eelbert_jax" / "compiled"
"""Where compiled programs are kept for the next process, unless JAX_COMPILATION_CACHE_DIR names a place."""

HELP_FLAGS = ("--help", "-h", "-help", "--helpfull", "--helpshort")


def main(argv: list[str] | None = None) -> int:
    """Run one job and return the exit status of the process.

    Returns:
      0: done; 2: bad input; 75: preempted after saving, the same command continues; 130: interrupted;
      1: its processes did not meet, or its store is away. A crash and the watchdog end it with 1 too.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in HELP_FLAGS:
        print(cli.overview())
        return 0 if words else 2
    name, rest = words[0], words[1:]
    try:
        if name not in cli.JOBS:
            raise unknown("job", name, cli.JOBS)
        if any(word in HELP_FLAGS for word in rest):
            print(cli.job_help(name))
            return 0
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be any bytes
            sys.stdout.reconfigure(errors="backslashreplace")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
        if argv is None and memory.steps_run_on_cpu():
            memory.keep_freed_memory()
        importlib.import_module(f"eelbert_jax.jobs.{name}").main(rest)
        sys.stdout.flush()
    except UserError as error:
        return _bad_input(error)
    except TryAgain as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Preempted as preempted:
        print(preempted, file=sys.stderr)
        return os.EX_TEMPFAIL
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (RuntimeError, AssertionError, LookupError, AttributeError) as error:
        meaning = absent_platform(error) or missing_setting(error)
        if meaning is None:
            raise
        return _bad_input(meaning)
    return 0


def _bad_input(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
