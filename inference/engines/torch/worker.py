"""Answers a Parquet file of prompts where the GPU is: `python -m inference.engines.torch.worker`.

Beside this package and `retrieval`, it needs torch, transformers, safetensors, pyarrow and dagster-pipes, for
GGUF files gguf and accelerate, and for a response_format llguidance. Killed and run again, it computes only
what is missing.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from inference.engines.generation import InvalidSamplingOption, Quantization, SamplingOptions
from inference.engines.protocol import EngineError
from inference.engines.worker.process import worker_process
from inference.engines.worker.prompt_files import AnswerFile, InvalidPromptFile, read_prompts

logger = logging.getLogger(__name__)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m inference.engines.torch.worker",
        description="Answers a Parquet file of prompts with a language model, on a GPU if there is one. Run "
        "it again after it was stopped: it computes only what is missing.",
        epilog="example: python -m inference.engines.torch.worker prompts.parquet answers.parquet "
        "--model /models/qwen2.5-7b-instruct",
    )
    parser.add_argument(
        "prompts",
        type=Path,
        metavar="PROMPTS.parquet",
        help="prompt_id (text), forms (lists of chat messages with role and content, longest form first), "
        "sharing_key (text or NULL: prompts with equal keys may share what their beginnings compute), "
        "response_format (OpenAI's, as JSON, or NULL) and adapter (the folder of a LoRA adapter, or NULL)",
    )
    parser.add_argument("answers", type=Path, metavar="ANSWERS.parquet", help="the file to write")
    parser.add_argument(
        "--model", type=Path, required=True, help="a model's folder with safetensors, or a .gguf file"
    )
    parser.add_argument(
        "--quantization",
        choices=get_args(Quantization),
        help="what products with weights are computed in: int8 on a CPU, fp8 on a GPU; the type of the "
        "weights unless given",
    )
    parser.add_argument("--max-tokens", type=int, default=300, help="the length limit of an answer (300)")
    parser.add_argument(
        "--end-with-parent", action="store_true", help="end when the process that started it has ended"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 where the model or the prompts can't be used; a failed prompt is a row."""
    given = _arguments(words)
    with worker_process(given.end_with_parent) as pipes:
        try:
            # Before a model is loaded for nothing.
            next(read_prompts(given.prompts), None)
            AnswerFile(given.answers).answered()
            SamplingOptions(max_tokens=given.max_tokens)
            # They import torch, which takes seconds.
            from inference.engines.causal_model import open_causal_model
            from inference.engines.torch.decoder import build_generator
            from inference.engines.worker.answering import answer_prompt_file

            model = open_causal_model(given.model, given.quantization)
            outcome = answer_prompt_file(
                given.prompts, given.answers, model, build_generator(model), given.max_tokens
            )
        except (EngineError, InvalidPromptFile, InvalidSamplingOption, OSError) as error:
            logger.error("%s", error)  # without a traceback
            return 1
        logger.info(
            "%d of %d prompts have an answer, %d failed; %d answered now in %.1f s, %.2f per second",
            *(outcome.answered, outcome.prompts, outcome.failed),
            *(outcome.computed, outcome.seconds, outcome.prompts_per_s),
        )
        if pipes is not None:
            pipes.report_asset_materialization(
                {
                    "prompts": outcome.prompts,
                    "answered": outcome.answered,
                    "computed": outcome.computed,
                    "failed": outcome.failed,
                    "prompts_per_s": round(outcome.prompts_per_s, 3),
                    "device": outcome.numeric_form,
                }
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
