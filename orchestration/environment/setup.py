"""The last step of `make setup`: prepares files that no package contains, such as the Delta jars."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from assets.lake.spark import JARS
from orchestration.environment import jars
from orchestration.environment.class_archive import make_class_archive
from orchestration.environment.java import UnsupportedJava, require_java


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"{title} ... ", end="", file=sys.stderr, flush=True)
    began_s = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr)
        raise
    print(f"{time.monotonic() - began_s:.1f} s", file=sys.stderr)


def prepare_environment() -> None:
    """Adds the Delta jars, the default embedder, compiled kernels and the class archive if they are missing.

    Raises:
        UnsupportedJava: There is no Java that Spark runs on.
        JarError: The jars could not be fetched, or are not the pinned ones.
    """
    java = require_java()
    if jars.jar_faults(JARS):
        with _step(f"Delta jars ({jars.DELTA_PACKAGE})"):
            jars.fetch_jars(JARS)
    with _step("Default embedder, converted for OpenVINO"):
        # Read when they are imported; what they would print is no help here.
        os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        from retrieval.embedding.embedder import Embedder, EmbedderConfig

        Embedder.prepare(EmbedderConfig())
    with _step("MinHash kernels, compiled"):
        from assets.dedup.minhash import compile_minhash_kernels

        compile_minhash_kernels()
    with _step("Java class archive, so that Spark starts faster"):
        made = make_class_archive(java)
    if not made:
        print("  this Java can not make one: Spark works, and starts slower", file=sys.stderr)


if __name__ == "__main__":
    try:
        prepare_environment()
    except (UnsupportedJava, jars.JarError) as error:
        sys.exit(f"error: {error}")
