"""A text that is held to a JSON schema fits it, beside texts that are not, to the same bytes in any batch."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_batch_decoder import assert_same, completed, decoder_of
from tiny_decoders import END, VOCABULARY, byte_tokenizer, random_prompts
from transformers import BertTokenizer

from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.decoder import BatchDecoder
from inference.engines.torch.json_guide import MAX_SCHEMA_CHARACTERS, InvalidJsonSchema, JsonGuides

RIVER = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "wet": {"type": "boolean"}},
    "required": ["name", "wet"],
    "additionalProperties": False,
}


def fits(schema: object) -> str:
    """Returns the response_format that asks for a schema."""
    return json.dumps({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})


@pytest.fixture(scope="module")
def decoder() -> Iterator[BatchDecoder]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield decoder_of()
    torch.set_num_threads(threads)


NAMES = st.text('abcé"\\ \n', min_size=1, max_size=4)
LEAVES = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-99, 99),
        st.integers(0, 50),
    ),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 5)),
    st.builds(
        lambda pattern: {"type": "string", "pattern": pattern}, st.sampled_from(["^[a-c]{2,4}$", "^é?x$"])
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.one_of(NAMES, st.integers(-5, 5), st.none()), min_size=1, max_size=4),
    ),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with closed sets of properties, of which some are required."""
    return st.dictionaries(NAMES, st.tuples(inner, st.booleans()), max_size=3).map(
        lambda fields: {
            "type": "object",
            "properties": {name: schema for name, (schema, _) in fields.items()},
            "required": [name for name, (_, needed) in fields.items() if needed],
            "additionalProperties": False,
        }
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        st.builds(
            lambda each, most: {"type": "array", "items": each, "maxItems": most}, inner, st.integers(0, 3)
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
    ),
    max_leaves=4,
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas=st.lists(SCHEMAS, min_size=8, max_size=8), seed=st.integers(0, 99))
def test_a_text_fits_its_schema(decoder: BatchDecoder, schemas: list[Any], seed: int) -> None:
    prompts = random_prompts(16, seed, longest=30)
    formats = [None if number % 2 else fits(schemas[number // 2]) for number in range(16)]
    generations = completed(
        decoder,
        [
            GenerationRequest(
                prompt,
                SamplingOptions(
                    150 if said else 10, temperature=number % 3, seed=number, response_format=said
                ),
            )
            for number, (prompt, said) in enumerate(zip(prompts, formats, strict=True))
        ],
    )
    for number, generation in enumerate(generations):
        assert generation.failure is None
        if formats[number] and generation.finish_reason == "stop":
            jsonschema.validate(json.loads(generation.text), schemas[number // 2])


def test_guided_texts_end_and_are_the_same_in_any_company(decoder: BatchDecoder) -> None:
    def requests_in(*formats: str | None) -> list[GenerationRequest]:
        return [
            GenerationRequest(
                prompt,
                SamplingOptions(
                    100,
                    temperature=1.5 * (number % 2),
                    seed=number,
                    logprobs=2,
                    frequency_penalty=number % 3 / 2,
                    response_format=formats[number % 3],
                ),
            )
            for number, prompt in enumerate(random_prompts(18, seed=4))
        ]

    requests = requests_in(fits(RIVER), '{"type": "json_object"}', None)
    whole = completed(decoder, requests)
    rivers = [each for number, each in enumerate(whole) if number % 3 == 0]
    assert all(each.finish_reason == "stop" for each in rivers)
    for each in rivers:
        jsonschema.validate(json.loads(each.text), RIVER)
    assert len({each.text for each in rivers}) > 3
    ended = [each.text for each in whole[1::3] if each.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(text), dict) for text in ended)
    for order in (np.random.default_rng(1).permutation(18), [12], [10, 12]):
        for place, generation in zip(order, completed(decoder, [requests[at] for at in order]), strict=True):
            assert_same(generation, whole[place])
    without = completed(decoder, requests_in(None, None, None))
    for one, other in zip(without[2::3], whole[2::3], strict=True):
        assert_same(one, other)


deep: Any = {}
for _ in range(100):
    deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
BAD = {
    "Invalid type": {"type": "nope"},
    "look-around": {"type": "string", "pattern": "^(?=a)b$"},
    "does not fetch": {"$ref": "http://127.0.0.1:1/schema.json"},
    "not present": {"$ref": "file:///etc/passwd"},
    "Unimplemented keys": {"type": "array", "uniqueItems": True},
    "Unsatisfiable": {"allOf": [{"type": "integer"}, {"type": "string"}]},
    "NoExtension": {"anyOf": [{"$ref": "#"}]},
    f"{MAX_SCHEMA_CHARACTERS} at most": {"enum": ["x" * MAX_SCHEMA_CHARACTERS]},
    "invalid type": {"x-guidance": {"whitespace_flexible": "no"}},
    "recursion limit": {"anyOf": [deep, {"properties": {"b": deep}}]},
}


def test_a_schema_that_can_not_be_kept_fails_its_prompt_alone(decoder: BatchDecoder) -> None:
    fine = GenerationRequest(np.array([1, 2, 3]), SamplingOptions(250, response_format=fits(RIVER)))
    wrong = [
        GenerationRequest(np.array([1, 2, 3]), SamplingOptions(100, response_format=fits(schema)))
        for schema in BAD.values()
    ]
    first, *failed, last = completed(decoder, [fine, *wrong, fine])
    assert first.text == last.text
    assert first.finish_reason == "stop"
    for said, generation in zip(BAD, failed, strict=True):
        assert generation.finish_reason == "error"
        assert said in str(generation.failure)
        assert len(str(generation.failure)) < 600


def test_a_schema_that_grows_too_complex_on_the_way_fails_its_prompt_alone(decoder: BatchDecoder) -> None:
    """Each letter may belong to any of very many overlapping words."""
    words = {"type": "string", "pattern": "^(" + "|".join(f"[a-z]{{0,{n}}}{n}" for n in range(400)) + ")*$"}
    requests = [
        GenerationRequest(prompt, SamplingOptions(60, temperature=3, response_format=said))
        for prompt in random_prompts(4)
        for said in (fits(words), fits(RIVER))
    ]
    for number, generation in enumerate(completed(decoder, requests)):
        if number % 2:
            jsonschema.validate(json.loads(generation.text), RIVER)
        else:
            assert generation.failure is None or "JSON schema" in generation.failure


def test_a_tokenizer_that_is_not_of_bytes_is_named() -> None:
    guides = JsonGuides(BertTokenizer(vocab={"[UNK]": 0, "a": 1}), 2, frozenset({1}))
    with pytest.raises(InvalidJsonSchema, match="tokenizer"):
        guides.guide("{}")


def test_the_vocabulary_of_the_model_may_be_larger_than_that_of_the_tokenizer() -> None:
    guides = JsonGuides(byte_tokenizer(), VOCABULARY + 70, frozenset({END}))
    guide = guides.guide('{"type": "boolean"}')
    masked = guides.masked(torch.zeros(3, VOCABULARY + 70), {1: guide})
    assert masked.isfinite().sum(-1).tolist() == [VOCABULARY + 70, 2, VOCABULARY + 70]  # t and f
