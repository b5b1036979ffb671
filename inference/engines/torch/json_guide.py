"""Which tokens keep a text within a JSON schema: bit masks of llguidance for the slots that have one."""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import llguidance
    from llguidance._lib import JsonCompileOptions

MAX_SCHEMA_CHARACTERS = 65_536
_KEPT_SCHEMAS = 32
# A model that can't tell what comes next may write blanks for ever; this is room for indents.
_OVERRIDES: "JsonCompileOptions" = {"whitespace_pattern": r"[ \n\t]{1,32}"}


class InvalidJsonSchema(ValueError):
    """No text can be held to this schema; the message says why."""


class JsonGuides:
    """Guides of one tokenizer; a schema's guide is compiled once for all the prompts that have it.

    Args:
        tokenizer: A fast tokenizer of transformers.
        vocabulary: Number of token ids that the model has logits for.
        end_token_ids: The tokens that end a text.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, end_token_ids: frozenset[int]) -> None:
        self._tokenizer, self._vocabulary, self._end_token_ids = tokenizer, vocabulary, end_token_ids
        self._compiled = lru_cache(maxsize=_KEPT_SCHEMAS)(self._compile)

    @cached_property
    def _tokens(self) -> "llguidance.LLTokenizer":
        """The tokenizer as llguidance reads it, which takes a second, and few prompts need it."""
        try:
            from llguidance.hf import from_tokenizer

            return from_tokenizer(
                self._tokenizer, n_vocab=self._vocabulary, eos_token=sorted(self._end_token_ids)
            )
        except ImportError as error:
            raise InvalidJsonSchema("response_format needs the package llguidance: install it") from error
        except Exception as error:  # whatever its reader of tokenizers raises
            raise InvalidJsonSchema(f"llguidance can not read the model's tokenizer: {error}") from error

    @cached_property
    def _executor(self) -> "llguidance.LLExecutor":
        import llguidance

        return llguidance.LLExecutor()

    def _compile(self, schema: str) -> "llguidance.LLMatcher":
        tokens = self._tokens
        import llguidance

        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_OVERRIDES)
        limits = llguidance.LLParserLimits(verbose_errors=False)
        return llguidance.LLMatcher(tokens, grammar, log_level=0, limits=limits)

    def guide(self, schema: str) -> "llguidance.LLMatcher":
        """Returns what follows a text from its beginning, and knows what may come next in it.

        Args:
            schema: The schema, as JSON.

        Raises:
            InvalidJsonSchema: The schema is too large, is none, can't be fulfilled, or has a keyword that
                llguidance does not know: what it can't keep is refused, and nothing is left out. Or the
                package is not installed, or can't read the tokenizer.
        """
        if len(schema) > MAX_SCHEMA_CHARACTERS:
            raise InvalidJsonSchema(
                f"the JSON schema has {len(schema)} characters: {MAX_SCHEMA_CHARACTERS} at most"
            )
        try:
            guide = self._compiled(schema).deep_copy()
        except ValueError as error:
            raise InvalidJsonSchema(f"the JSON schema can not be read: {error}") from error
        if fault := guide_fault(guide):
            raise InvalidJsonSchema(f"no text can be held to the JSON schema: {fault}")
        return guide

    def masked(self, logits: Tensor, guides: Mapping[int, "llguidance.LLMatcher"]) -> Tensor:
        """Returns the logits with minus infinity for the tokens that a guided slot can't have next.

        Args:
            logits: Float32 of shape (slots, vocabulary); they stay as they are.
            guides: The guides of the slots that have one.
        """
        if not guides:
            return logits
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par

        bits = allocate_token_bitmask(len(guides), self._vocabulary)
        matchers = [(guide, row) for row, guide in enumerate(guides.values())]
        fill_next_token_bitmask_par(self._executor, matchers, bits)
        allowed = np.unpackbits(bits.view(np.uint8), axis=1, count=self._vocabulary, bitorder="little")
        forbidden = torch.from_numpy(allowed == 0).to(logits.device)
        slots = torch.tensor(list(guides), device=logits.device)
        return logits.index_copy(0, slots, logits[slots].masked_fill(forbidden, float("-inf")))


def guide_fault(guide: "llguidance.LLMatcher") -> str | None:
    """Returns why a guide can follow its text no further; None while it can."""
    return " ".join(guide.get_error().split())[:300] if guide.is_error() else None
