"""Tries a numeric form of a model in a process of its own, which may end in the attempt.

OpenVINO's kernels of some forms divide by zero for some shapes and end the process: 2026.4.1 with bfloat16 on
processors with AMX, for attention heads of 16.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from retrieval.embedding.compiled_model import NumericForm, compile_form, least_cosine
from retrieval.embedding.model_folder import read_model_folder

_MODULE = "retrieval.embedding.form_trial"
FAILED = -1.0
"""The cosine of a form whose trial did not end well."""


def tried_cosine(model_path: Path, converted: Path, form: str, dimension: int, threads: int | None) -> float:
    """Returns the least cosine of a model's vectors in a form to those in float32, on probe texts.

    Args:
        model_path: The model's folder.
        converted: Its converted file.
        form: The numeric form.
        dimension: How many values of a vector are kept.
        threads: Processor threads; None for all of the machine's.

    Returns:
        The cosine, or `FAILED`.
    """
    arguments = [str(model_path), str(converted), form, str(dimension), str(threads or 0)]
    # The import path of a Spark worker can be set at run time.
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", _MODULE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": paths},
        check=False,
    )
    try:
        return float(json.loads(done.stdout)) if done.returncode == 0 else FAILED
    except ValueError:
        return FAILED


def _main(model_path: str, converted: str, form: NumericForm, dimension: str, threads: str) -> None:
    import openvino

    core = openvino.Core()
    tried = compile_form(core, Path(converted), form, int(threads) or None)
    exact = compile_form(core, Path(converted), "f32", int(threads) or None)
    print(json.dumps(least_cosine(read_model_folder(Path(model_path)), int(dimension), tried, exact)))


if __name__ == "__main__":
    given: Any = sys.argv[1:]
    _main(*given)
