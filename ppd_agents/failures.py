"""What goes wrong at the command line, told in a sentence, with an exit code: 1, 2 or 130."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ppd_env.errors import PPDError

UNFINISHED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: not finished, or not everything is as it should be; something the user can mend; Ctrl-C."""

_REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space, or name another folder",
    errno.EDQUOT: "Your share of the disk is used up: free some space, or name another folder",
    errno.EACCES: "Permission is missing: name another file or folder, or ask for the right",
    errno.EPERM: "Permission is missing: name another file or folder, or ask for the right",
    errno.EROFS: "That disk is read-only: name another file or folder",
    errno.ENOENT: "There is no such file or folder: check the name",
    errno.EISDIR: "That is a folder, where a file is needed: name a file",
    errno.ENOTDIR: "Part of that path is a file, not a folder: name another folder",
    errno.EEXIST: "Something of that name is there already: name another one, or remove it",
    errno.ENAMETOOLONG: "The name is too long for this disk: choose a shorter one",
    errno.EMFILE: "Too many files are open: raise the limit with `ulimit -n 4096`",
    errno.EADDRINUSE: "The port is in use: name another one",
}
_EXTRAS = {
    "transformers": "sam",
    "segment_anything": "sam",
    "ray": "ray",
    "timm": "edgetam",
    "moviepy": "video",
}


def guarded(work: Callable[[], int], *, debug: bool = False, hope: Callable[[], str] = str) -> int:
    """Do the work of a command; whatever goes wrong becomes one sentence on standard error.

    Args:
        work: Returns the exit code.
        debug: Show where an error came from, as Python does, before the sentence.
        hope: Says what an interrupted user may expect; empty where there is nothing to say.

    Returns:
        The exit code: 2 for what the user can mend, 1 for what is not finished or a fault of the program, 130
        after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    try:
        code = _code_of(work)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        said = hope()
        _tell(f"interrupted{f'; {said}' if said else ''}.", "\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has closed it, as `head` does; what is left to flush goes nowhere.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return UNFINISHED
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        sentence, code = in_a_sentence(error)
        _tell(sentence)
        return code


def _code_of(work: Callable[[], int]) -> int:
    """Return the exit code of some work, also where it asks to exit, as the parser of options does."""
    try:
        return work()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else (MISUSED if stop.code else 0)


def in_a_sentence(error: Exception) -> tuple[str, int]:
    """Return what to tell about an error, and the exit code.

    Args:
        error: Anything but an interruption.
    """
    if isinstance(error, PPDError):
        return str(error), MISUSED
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _package(error.name), MISUSED
    if _out_of_memory(error):
        return (
            "There is not enough memory. Close other programs, take smaller images, smaller batches or a "
            "smaller model, or another --device.",
            UNFINISHED,
        )
    refused = _refused(error)
    if refused is not None:
        return _file_sentence(refused), MISUSED
    reason = " ".join(str(error).split())[:300].rstrip(".") or "no reason given"
    return (
        f"Something went wrong that should not: {type(error).__name__}: {reason}. This is a fault of the "
        "program; run the command again with --debug to see where, and report what it prints.",
        UNFINISHED,
    )


def _out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out; torch says so in its own words."""
    words = str(error)
    told = "can't allocate memory" in words or "out of memory" in words
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def _refused(error: BaseException) -> OSError | None:
    """Return what the system refused, where that is the error or lies behind it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    # torch and safetensors report a full disk in words of their own.
    return _refused(error.__cause__) if error.__cause__ is not None else None


def _file_sentence(error: OSError) -> str:
    name = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
    reason = error.strerror or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "Check the file and the disk")
    return f"{name}{reason}. {remedy}."


def _package(name: str) -> str:
    package = name.partition(".")[0]
    extra = _EXTRAS.get(package, "agents")
    return (
        f"The package {package} is not installed: pip install {package}, or everything that belongs to it: "
        f"pip install 'point-prompt-defender[{extra}]'."
    )


def refuse_unwritable(path: Path | None) -> None:
    """Make sure that a file can be written before the work for it begins.

    Args:
        path: The file to be; None needs nothing.

    Raises:
        PPDError: It is a folder, or its folder cannot be made or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise PPDError(f"{path} is a folder: name a file, such as {path / 'result.json'}.")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise PPDError(f"{path} cannot be written: {nearest} is a file, not a folder. Name another file.")
    if not os.access(nearest, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PPDError(f"{path} cannot be written: permission is missing. Name another file.")


def _tell(sentence: str, before: str = "") -> None:
    print(f"{before}ppd: {sentence}", file=sys.stderr)
