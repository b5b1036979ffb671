import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from job_faults import train_until_killed, train_until_the_disk_is_full
from safetensors.torch import load_file, save_file
from tiny_decoders import byte_tokenizer
from tiny_generator import save_tiny_generator
from transformers import GPT2Config, GPT2LMHeadModel

from inference.engines.adapter_files import require_base
from inference.engines.causal_model import open_causal_model
from inference.engines.digest import adapter_digest, model_files_digest
from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.decoder import build_generator
from inference.prompting.cited_reply import parse_cited_reply
from inference.prompting.prompt_assembly import NOT_FOUND
from training.datasets.training_set import EXAMPLE_SCHEMA
from training.generator.examples import (
    InvalidWrittenExamples,
    WrittenExample,
    WrittenSplits,
    dataset_examples,
    read_written_examples,
)
from training.generator.network import AdapterNetwork
from training.generator.training import GeneratorOutcome, _ExampleLearner, train_generator
from training.jobs.loop import OutOfMemory, TrainingDiverged
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.jobs.ranked_lists import TooFewExamples

TRAINING = GeneratorTraining(
    minutes=1, batch_examples=8, micro_batch=4, rank=16, learning_rate=1e-2, validations=4
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_generator(tmp_path_factory.mktemp("generator"))
    weights = load_file(folder / "model.safetensors")
    # As it is, no hidden state makes any token likely, and all tokens are about alike.
    weights["lm_head.weight"] *= 60
    weights["model.embed_tokens.weight"] *= 20
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def examples(
    count: int, words: str = "stream peak loaf metal music port orbit flower"
) -> list[WrittenExample]:
    return [
        WrittenExample(
            f"e{number}",
            f"what of {word} {number}?",
            [[{"role": "user", "content": f"what of {word} {number}?"}]],
            [f"{word} is good" if number % 4 else NOT_FOUND],
        )
        for number in range(count)
        for word in [words.split()[number % 8]]
    ]


def splits() -> WrittenSplits:
    every = examples(48)
    return WrittenSplits(every[:32], every[32:40], every[40:])


def trained(
    base: Path, folder: Path, training: GeneratorTraining = TRAINING, said: list[str] | None = None
) -> tuple[AdapterNetwork, GeneratorOutcome]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # it would stand between the lines of progress
        network = AdapterNetwork(base, training)
    lines = said if said is not None else []
    return network, train_generator(network, splits(), training, folder, lines.append)


def saved(network: AdapterNetwork, folder: Path) -> Path:
    folder.mkdir()
    network.save(folder)
    return folder


def test_an_adapter_learns_its_responses_and_the_batch_decoder_writes_them(
    tiny_base: Path, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"minutes": 5, "most_passes": 20})
    network, outcome = trained(tiny_base, tmp_path / "job", training)
    assert outcome.training.after > 10 * outcome.training.before
    assert outcome.after.mean() < outcome.before.mean()
    folder = saved(network, tmp_path / "adapter")
    require_base(folder, tiny_base, model_files_digest(tiny_base))
    model = open_causal_model(tiny_base)
    prompt = model.prompt_ids(splits().train[1].forms[0])
    options = SamplingOptions(max_tokens=8)
    requests = [GenerationRequest(prompt, options, None, each) for each in (folder, None)]
    texts = {each.index: each.text for each in build_generator(model).generate(requests)}
    assert "is good" in texts[0] or texts[0] == "not found"
    assert "is good" not in texts[1]
    assert "not found" not in texts[1]


def test_the_base_is_in_bfloat16_where_the_processor_has_instructions_for_it(tiny_base: Path) -> None:
    network = AdapterNetwork(tiny_base, TRAINING)
    has_instructions = {"avx512_bf16", "amx_bf16", "bf16"} & set(Path("/proc/cpuinfo").read_text().split())
    fast = has_instructions or network.device.type == "cuda"
    trained_names = {name for name, _ in network.named_parameters()}
    base = {each.dtype for name, each in network.model.named_parameters() if name not in trained_names}
    assert base == {torch.bfloat16 if fast else torch.float32}
    assert {each.dtype for _, each in network.named_parameters()} == {torch.float32}


def test_a_job_that_was_killed_ends_with_the_same_adapter(tiny_base: Path, tmp_path: Path) -> None:
    whole, _ = trained(tiny_base, tmp_path / "whole")
    train_until_killed(lambda: trained(tiny_base, tmp_path / "killed"))
    said: list[str] = []
    resumed, _ = trained(tiny_base, tmp_path / "killed", said=said)
    assert any("going on from the checkpoint after step 6 of 12" in line for line in said)
    folders = [saved(whole, tmp_path / "a"), saved(resumed, tmp_path / "b")]
    assert len({adapter_digest(folder) for folder in folders}) == 1


def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(tiny_base: Path, tmp_path: Path) -> None:
    assert train_until_the_disk_is_full(lambda: trained(tiny_base, tmp_path), tmp_path).step == 3
    _, outcome = trained(tiny_base, tmp_path)
    assert outcome.training.standing.step == 12


def test_out_of_memory_halves_the_batch_and_says_so(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = AdapterNetwork.losses

    def machine(most: int) -> object:
        def smaller(self: AdapterNetwork, of: object, rows: np.ndarray) -> torch.Tensor:
            if torch.is_grad_enabled() and len(rows) > most:
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
                )
            return losses(self, of, rows)  # type: ignore[arg-type]

        return smaller

    monkeypatch.setattr(AdapterNetwork, "losses", machine(1))
    said: list[str] = []
    _, outcome = trained(tiny_base, tmp_path / "halved", said=said)
    assert [line for line in said if "out of memory" in line] == [
        "out of memory in step 0: 2 examples at a time from here on, 4 times a step",
        "out of memory in step 0: 1 examples at a time from here on, 8 times a step",
    ]
    assert outcome.training.standing.micro_batch == 1
    monkeypatch.setattr(AdapterNetwork, "losses", machine(0))
    said.clear()
    with pytest.raises(OutOfMemory, match="smaller base"):
        trained(tiny_base, tmp_path / "none", said=said)
    assert said[-1] == (
        "out of memory in step 0: from here on values of layers are computed again in place of being kept, "
        "which takes longer"
    )


def test_layers_that_are_computed_again_have_the_same_gradients(tiny_base: Path) -> None:
    network = AdapterNetwork(tiny_base, TRAINING)
    found = network.tokenize(examples(4))

    def gradients() -> torch.Tensor:
        weights = [each for _, each in network.named_parameters()]
        found_gradients = torch.autograd.grad(network.losses(found, np.arange(4)).sum(), weights)
        return torch.cat([each.reshape(-1) for each in found_gradients])

    kept = gradients()
    network.recompute()
    assert network.recomputes
    assert torch.equal(gradients(), kept)
    assert kept.abs().max() > 0


def test_a_training_that_gets_worse_ends_before_its_last_step(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.6, 0.4, 0.3])  # of the base, and after steps 3, 6 and 9 of 12
    monkeypatch.setattr(_ExampleLearner, "score", lambda self: next(scores))
    _, outcome = trained(tiny_base, tmp_path)
    assert outcome.training.ended == "the validation has not become better 2 times"
    assert (outcome.training.standing.best_step, outcome.training.standing.step) == (3, 9)


def test_a_loss_that_is_no_number_names_the_step_and_the_examples(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = AdapterNetwork.losses

    def damaged(self: AdapterNetwork, of: object, rows: np.ndarray) -> torch.Tensor:
        found = losses(self, of, rows)  # type: ignore[arg-type]
        bad = [of.names[row] == "e3" for row in rows]  # type: ignore[attr-defined]
        return torch.where(torch.tensor(bad), torch.nan, found)

    monkeypatch.setattr(AdapterNetwork, "losses", damaged)
    with pytest.raises(TrainingDiverged, match=r"step \d+ is no number, at the examples e3:"):
        trained(tiny_base, tmp_path)


def test_a_batch_of_like_or_unlike_lengths_has_the_losses_that_each_example_has_alone(
    tiny_base: Path,
) -> None:
    network = AdapterNetwork(tiny_base, TRAINING)
    found = network.tokenize(
        [*examples(4), WrittenExample("long", "long?", examples(1)[0].forms, ["peak " * 40])]
    )
    with torch.no_grad():
        together = network.losses(found, np.arange(5))
        alone = torch.cat([network.losses(found, np.array([row])) for row in range(5)])
    assert torch.allclose(together, alone, rtol=1e-4)


def test_nothing_is_dropped_out_of_attention_either(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    file = tmp_path / "base" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_dropout": 0.5}))
    network = AdapterNetwork(tmp_path / "base", TRAINING)
    found = network.tokenize(examples(4))
    assert network.model.training
    assert torch.equal(network.losses(found, np.arange(4)), network.losses(found, np.arange(4)))


def test_a_batch_is_no_wider_than_what_the_model_reads(tmp_path: Path) -> None:
    sizes = {"n_positions": 100, "n_embd": 48, "n_layer": 1, "n_head": 4}  # it has no position after these
    config = GPT2Config(vocab_size=272, bos_token_id=None, eos_token_id=256, pad_token_id=257, **sizes)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path)
    network = AdapterNetwork(tmp_path, TRAINING)
    found = network.tokenize(
        [WrittenExample("x", "x?", [[{"role": "user", "content": "x" * 50}]], ["y" * 30])]
    )
    assert 64 < found.lengths[0] < 100
    assert torch.isfinite(network.losses(found, np.arange(1))).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (WrittenSplits([], [], []), "0 examples to train on"),
        (WrittenSplits(examples(5), examples(5), []), "5 examples to train on, and 8 are needed"),
        (WrittenSplits(examples(20), examples(2), []), "2 examples to validate on"),
        (
            WrittenSplits(
                [WrittenExample("x", "x?", each.forms, ["yes"]) for each in examples(20)], examples(8), []
            ),
            "the same response",
        ),
    ],
)
def test_too_few_examples_or_one_kind_of_response_are_told(
    given: WrittenSplits, message: str, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooFewExamples, match=message):
        train_generator(AdapterNetwork(tiny_base, TRAINING), given, TRAINING, tmp_path, lambda line: None)


def test_examples_longer_than_the_model_are_left_out_and_counted(tiny_base: Path, tmp_path: Path) -> None:
    said: list[str] = []
    given = replace(splits(), test=[])
    given.train.append(WrittenExample("long", "long?", given.train[0].forms, ["peak " * 400]))
    outcome = train_generator(AdapterNetwork(tiny_base, TRAINING), given, TRAINING, tmp_path, said.append)
    assert outcome.training.cut_off == 1
    assert "1 of 33 examples to train on are longer than the 256 tokens" in " ".join(said)
    # Nothing is left to measure the result on, which is said before it is trained.
    assert "no example is held out" in said[1]
    assert len(outcome.after) == 0


def test_an_unknown_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownBase, match="no model at"):
        AdapterNetwork(tmp_path / "none", TRAINING)


def test_a_control_token_in_a_response_is_text(tiny_base: Path) -> None:
    network = AdapterNetwork(tiny_base, TRAINING)
    found = network.tokenize([WrittenExample("x", "x?", examples(1)[0].forms, ["peak [SEP] is good"])])
    assert list(found.ids[0][-found.responses[0] :]).count(102) == 1
    assert found.ids[0][-1] == 102


def test_a_files_examples_are_split_by_their_prompts_and_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"p{number % 40}", "response": f"r{number}"} for number in range(60)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = read_written_examples(file)
    sides = [
        {example.forms[0][0]["content"] for example in part}
        for part in (found.train, found.validation, found.test)
    ]
    assert [len(side) for side in sides] == [32, 4, 4]
    assert not sides[0] & (sides[1] | sides[2])
    assert not sides[1] & sides[2]
    file.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "answer": "b"}\n')
    with pytest.raises(InvalidWrittenExamples, match=r"mine\.jsonl, line 2: response: Field required"):
        read_written_examples(file)
    with pytest.raises(InvalidWrittenExamples, match=r"none\.jsonl"):
        read_written_examples(tmp_path / "none.jsonl")


def test_prompts_of_a_file_that_ask_nearly_the_same_are_on_one_side(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    words = [
        a + b for a in ("gal", "mor", "tis", "ven", "lup", "rak") for b in ("ado", "ine", "usk", "oph", "emy")
    ]
    asked = ["What is the default {} of the server?", "What's the default {} of the server?"]
    rows = [{"prompt": each.format(word), "response": word} for each in asked for word in words]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = read_written_examples(file)
    sides = [{each.responses[0] for each in part} for part in (found.train, found.validation, found.test)]
    assert sum(map(len, sides)) == len(words), "each word is on one side, in both wordings"
    assert [len(part) for part in (found.validation, found.test)] == [6, 6]
    file.write_text("\n".join(map(json.dumps, rows[::-1])) + "\n")
    again = read_written_examples(file)
    assert {each.question for each in again.test} == {each.question for each in found.test}


def test_a_training_sets_instructions_cite_their_chunk_or_refuse() -> None:
    blank: dict[str, object] = {"negatives": [], "candidates": [], "scores": []}
    rows: list[dict[str, object]] = []
    for number in range(30):
        text = f"A thing{number} is a device for purpose{number}. It was made in 19{number:02}."
        of = {"chunk_ids": [f"c{number}"], "doc_ids": [f"d{number}"], **blank}
        rows.append({"example_id": f"t{number}", "kind": "domain_text", "positive": text, **of})
        asked = {"question": f"What is a thing{number}?", "positive": text.split(". ")[0] + "."}
        rows.append({"example_id": f"i{number}", "kind": "instruction", **asked, **of})
    own = {"question": "Who are we?", "positive": "A small firm.", "chunk_ids": [], "doc_ids": [], **blank}
    rows.append({"example_id": "own", "kind": "instruction", **own})
    table = pa.Table.from_pylist(rows, EXAMPLE_SCHEMA)
    empty = EXAMPLE_SCHEMA.empty_table()
    made = dataset_examples({"train": table, "validation": empty, "test": empty}).train
    assert len(made) == 31
    refused = [each for each in made if each.responses[0] == NOT_FOUND]
    assert 2 <= len(refused) <= 12
    for each in made:
        prompt = each.forms[0][-1]["content"]
        of_thing = f"A thing{each.name[1:]} is a device"
        if each.name == "own":
            assert (prompt, each.responses) == ("Who are we?", ["A small firm."])
        elif each in refused:
            assert of_thing not in prompt
        else:
            cited = each.responses[0].rsplit("[", 1)[1].rstrip("]")
            assert f'<passage number="{cited}">\n{of_thing}' in prompt
            assert prompt.count("<passage") == 4
    assert parse_cited_reply(NOT_FOUND, [], []).refused
