"""A process that feeds damaged and hostile ONNX files to the library: `python fuzzing.py FIRST COUNT FOLDER`.

Case number i is always the same file. Every file must become a model or an `EdgekdError` of one line. The process tells
each case before it starts, so that whoever watches it knows the one that crashed it; a case that takes too long ends
the process, wherever it hangs, and memory is limited by the operating system.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

import mutations
import onnx
from google.protobuf.message import DecodeError

from edgekd.errors import EdgekdError
from edgekd.inspect import inspect_model
from edgekd.onnx_file import load
from edgekd.onnx_import import import_onnx

SECONDS, BYTES = 20, 2 * 2**30
"""What one case may take: ten thousand times what most take, and as much memory on top of what the libraries hold."""
INSPECTED = 10
"""Every so many cases are also shown to `inspect`, which is slower: it asks ONNX Runtime too."""


def outcome(path: Path, number: int) -> str:
    """ "model", or the one line that says why not; behind an exclamation mark where that line is no good."""
    try:
        if number % INSPECTED == 0:
            inspect_model(path)
        import_unchecked(path)
        import_onnx(load(path))
    except EdgekdError as error:
        line = str(error)
        return f"! {line!r}" if any(word in line for word in ("\n", "alloc", "emory")) else line
    except Exception:
        return f"! {traceback.format_exc(limit=-4)}"
    return "model"


def import_unchecked(path: Path) -> None:
    """The importer alone, which must not lean on onnx's checker either; functions it may take as checked."""
    model = onnx.ModelProto()
    with contextlib.suppress(DecodeError, EdgekdError):
        model.ParseFromString(path.read_bytes())
        if not model.functions:
            import_onnx(model)


def limit_memory() -> None:
    """At most `BYTES` more than now."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))


def tell(*line: int | float | str) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(first: int, count: int, folder: Path) -> None:
    """Run cases, telling number, mutation and outcome of each."""
    warnings.simplefilter("ignore")
    models = {name: onnx.parser.parse_model(text) for name, text in mutations.MODELS.items()}
    (folder / "weights.bin").write_bytes(bytes(4096))
    path = folder / "model.onnx"
    for name, model in models.items():  # each is sound before it is damaged, and warms the libraries up
        path.write_bytes(mutations.with_weights(model).SerializeToString())
        assert outcome(path, 0) == "model", name
    limit_memory()
    for number in range(first, first + count):
        rng = random.Random(number)
        name, kind = rng.choice(list(models)), rng.choice(list(mutations.KINDS))
        path.write_bytes(mutations.KINDS[kind](models[name], rng))
        tell(number, f"{kind} {name}")
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        started = time.perf_counter()
        told = outcome(path, number)
        faulthandler.cancel_dump_traceback_later()
        tell(number, told[:2000], round(time.perf_counter() - started, 2))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
