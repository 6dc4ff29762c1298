"""Generation on this machine: an answer is that of its prompt alone, whatever stands beside it, and memory may run out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mind_distill.errors import Stopped
from mind_distill.generation.base import Generation, Sampling, is_answered
from mind_distill.generation.local import LocalGenerator, is_out_of_memory
from mind_distill.generation.slots import Slots, Stack, new_memory
from tests.conftest import toy_model

SYSTEM = "<s>system\nYou answer.</s>\n"
QUESTIONS = ("a", "a longer one than that", "bcd", "e" * 60, "How many cups?", "2 + 2", "x" * 33, "one more", "y" * 29)


@pytest.fixture(scope="module")
def model() -> Any:
    """A toy that ends its texts at different lengths."""
    made = toy_model(seed=3)
    with torch.no_grad():
        made.lm_head.weight[2] += 7 * made.lm_head.weight[40:60].mean(0)
    return made


def encode(tokenizer: Any, texts: Any) -> list[list[int]]:
    return [tokenizer(SYSTEM + text, add_special_tokens=False)["input_ids"] for text in texts]


def generate(generator: LocalGenerator, prompts: list[list[int]], limit: int, seeds: Any = ()) -> list[Generation]:
    found: dict[int, Generation] = {}
    generator.generate(prompts, limit, found.__setitem__, seeds)
    assert len(found) == len(prompts)
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_is_the_same_in_every_batch(toy_tokenizer: Any, dtype: torch.dtype) -> None:
    """On one thread, in bfloat16 where the processor has it, bit for bit; the logits of each step are compared, so that a
    lucky equal text does not hide a difference."""
    exact = dtype == torch.bfloat16 and torch.cpu.get_capabilities().get("avx512_bf16")
    model = toy_model(seed=3).to(dtype)
    prompts = encode(toy_tokenizer, QUESTIONS)
    seen: dict[int, dict[tuple[int, int], torch.Tensor]] = {}

    class Watching(LocalGenerator):
        def _choose(self, group: Any, logits: Any, limit: int, done: Any) -> Any:
            for row, values in zip(group.rows, logits, strict=True):
                seen[self.batch][row.index, len(row.written)] = values.clone()
            return super()._choose(group, logits, limit, done)

    for batch in (1, 3, 4, 9):
        seen[batch] = {}
        generate(Watching(model, toy_tokenizer, batch), prompts, 40)
    for batch in (3, 4, 9):
        assert seen[batch].keys() == seen[1].keys()
        for place, values in seen[batch].items():
            alone = seen[1][place]
            assert torch.equal(values, alone) if exact else torch.allclose(values, alone, rtol=1e-3, atol=1e-5)


def test_answers_are_those_of_the_plainest_generation(model: Any, toy_tokenizer: Any) -> None:
    prompts = encode(toy_tokenizer, QUESTIONS)
    found = generate(LocalGenerator(model, toy_tokenizer, 4), prompts, 30)
    for prompt, generation in zip(prompts, found, strict=True):
        ids = list(prompt)
        while len(ids) - len(prompt) < 30:
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == 2:
                break
            ids.append(token)
        assert generation.text == toy_tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
    assert {g.eos for g in found} == {True, False}, "the toy must end some texts and not others"
    assert all(g.truncated is not g.eos for g in found)


def test_a_finished_text_gives_its_place_to_a_waiting_one(model: Any, toy_tokenizer: Any) -> None:
    prompts = encode(toy_tokenizer, QUESTIONS * 3)
    sizes: list[int] = []

    class Watching(LocalGenerator):
        def _step(self, group: Any) -> Any:
            sizes.append(len(group.rows))
            return super()._step(group)

    generate(Watching(model, toy_tokenizer, 6), prompts, 30)
    alone = sum(g.tokens for g in generate(LocalGenerator(model, toy_tokenizer, 1), prompts, 30))
    assert max(sizes) == 6 and sum(sizes) == alone
    assert len(sizes) < alone / 3.5, "slots stood empty although texts were waiting"


def windowed_model() -> Any:
    """A toy whose second layer sees only the last 8 tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config).eval()


def test_a_model_with_sliding_windows_is_answered_by_whole_batches(toy_tokenizer: Any, model: Any) -> None:
    windowed = windowed_model()
    assert isinstance(new_memory(windowed.config, torch.device("cpu")), Stack)
    assert isinstance(new_memory(model.config, torch.device("cpu")), Slots)
    prompts = encode(toy_tokenizer, QUESTIONS)
    together = generate(LocalGenerator(windowed, toy_tokenizer, 4), prompts, 12)
    for prompt, generation in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(windowed(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert generation.text == toy_tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def test_without_joining_the_batch_is_not_cut_to_what_a_processor_reads_best(toy_tokenizer: Any) -> None:
    """A Stack's rows stay together to their end, so few rows at a time would be few for the whole generation."""
    widths = []

    class Watching(LocalGenerator):
        def _step(self, group: Any) -> Any:
            widths.append(len(group.rows))
            return super()._step(group)

    prompts = encode(toy_tokenizer, [letter * 300 for letter in "abcdefgh"])
    generate(Watching(windowed_model(), toy_tokenizer, 8), prompts, 1)
    assert widths == [8]


def test_padding_needs_no_position_beyond_the_last_that_the_model_has(toy_tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=259, n_positions=128, n_embd=32, n_layer=2, n_head=4, eos_token_id=2, bos_token_id=1)
    learned = GPT2LMHeadModel(config).eval()
    prompts = [list(range(3, 113)) + tail for tail in ([5, 6, 7], [8])]
    alone = [generate(LocalGenerator(learned, toy_tokenizer, 1), [prompt], 8)[0] for prompt in prompts]
    assert generate(LocalGenerator(learned, toy_tokenizer, 2), prompts, 8) == alone


def test_drawn_answers_do_not_depend_on_their_neighbours(model: Any, toy_tokenizer: Any) -> None:
    prompts, seeds = encode(toy_tokenizer, QUESTIONS), list(range(100, 109))
    sampling = Sampling(temperature=1.5, top_p=0.9, seed=7)
    whole = generate(LocalGenerator(model, toy_tokenizer, 4, sampling), prompts, 20, seeds)
    alone = generate(LocalGenerator(model, toy_tokenizer, 1, sampling), prompts[3:], 20, seeds[3:])
    assert whole[3:] == alone
    other = generate(LocalGenerator(model, toy_tokenizer, 4, sampling._replace(seed=8)), prompts, 20, seeds)
    assert sum(a.text != b.text for a, b in zip(whole, other, strict=True)) > 5


class Crowded:
    """A model that runs out of memory beside more than so many texts, as an allocator does."""

    def __init__(self, model: Any, most: int, problem: Exception) -> None:
        self.model, self.most, self.problem = model, most, problem
        self.refused: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, input_ids: Any, **rest: Any) -> Any:
        if len(input_ids) > self.most:
            self.refused.append(len(input_ids))
            raise self.problem
        return self.model(input_ids=input_ids, **rest)


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(model: Any, toy_tokenizer: Any, problem: Exception) -> None:
    prompts = encode(toy_tokenizer, QUESTIONS * 3)
    calm = generate(LocalGenerator(model, toy_tokenizer, 4), prompts, 30)
    crowded = Crowded(model, 8, problem)  # steps are taken in eights, so 8 is the least that stands for one batch
    generator = LocalGenerator(crowded, toy_tokenizer, 24)
    assert generate(generator, prompts, 30) == calm
    assert generator.batch == 6 and crowded.refused


def test_texts_half_written_when_memory_runs_out_are_not_begun_again(model: Any, toy_tokenizer: Any) -> None:
    prompts = encode(toy_tokenizer, QUESTIONS)
    calm = generate(LocalGenerator(model, toy_tokenizer, 9), prompts, 30)

    class Late(Crowded):
        steps = 0

        def __call__(self, input_ids: Any, **rest: Any) -> Any:
            self.steps += input_ids.shape[1] == 1
            self.most = 2 if self.steps == 12 else 99
            return super().__call__(input_ids, **rest)

    late = Late(model, 99, MemoryError())
    assert generate(LocalGenerator(late, toy_tokenizer, 9), prompts, 30) == calm
    assert late.steps < 12 + 2 * 30


def test_one_text_that_does_not_fit_stops_the_evaluation(model: Any, toy_tokenizer: Any) -> None:
    generator = LocalGenerator(Crowded(model, 0, MemoryError()), toy_tokenizer, 4)
    with pytest.raises(Stopped, match="does not suffice for one text of"):
        generate(generator, encode(toy_tokenizer, QUESTIONS), 8)


def test_other_faults_are_not_taken_for_a_lack_of_memory(model: Any, toy_tokenizer: Any) -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("x"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        generate(LocalGenerator(Crowded(model, 0, RuntimeError("shape mismatch")), toy_tokenizer, 4), [[5, 6]], 8)


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        ("The answer is 12.", False),  # 12.5 may follow
        ("The answer is 12. ", True),
        ("The answer is 12.\n", True),
        ("The answer is 12\n", True),
        ("So the answer is 2.5. Next", True),
        ("So the answer is 2.5", False),
        ("Therefore the answer is: (B) a dog.\n", True),
        ("The answer is", False),
        ("What is the answer? It is 5. ", False),
        ("so \\boxed{5", False),
        ("so \\boxed{5}", True),
        ("so \\boxed{\\frac{1}{2}", False),
        ("so \\boxed{\\frac{1}{2}}", True),
        ("The answer is 4.\nNo: \\boxed{", False),
    ],
)
def test_a_closing_statement_is_complete_once_nothing_can_change_it(text: str, answered: bool) -> None:
    assert is_answered(text) is answered


def test_stopping_at_the_answer_keeps_what_was_extracted() -> None:
    from mind_distill.tasks.answers import extract_answer

    for text in ("He has 3 left. The answer is 3. He is glad of 5.", "It is \\boxed{7}, that is 2 + 5 = 7 of 9."):
        end = next(i for i in range(len(text)) if is_answered(text[:i]))
        assert extract_answer(text[:end], "number") == extract_answer(text, "number")


def test_stop_at_answer_ends_a_text_there(model: Any, toy_tokenizer: Any) -> None:
    """The toy is led along a script, token by token."""
    script = toy_tokenizer("2 + 1 = 3. The answer is 3.\nAnd then it goes on and on", add_special_tokens=False)[
        "input_ids"
    ]

    class Scripted(Crowded):
        def __call__(self, input_ids: Any, position_ids: Any, **rest: Any) -> Any:
            output = self.model(input_ids=input_ids, position_ids=position_ids, **rest)
            if input_ids.shape[1] == 1:
                output.logits[:, -1] = torch.nn.functional.one_hot(
                    torch.tensor([script[int(p) - 3] for p in position_ids[:, 0].clamp_min(3)]), 259
                ).float()
            return output

    scripted = Scripted(model, 99, MemoryError())
    (long,) = generate(LocalGenerator(scripted, toy_tokenizer, 1), [[5, 6, 7, 8]], 40)
    (short,) = generate(LocalGenerator(scripted, toy_tokenizer, 1, stop_at_answer=True), [[5, 6, 7, 8]], 40)
    assert short.text == "2 + 1 = 3. The answer is 3.\n" and long.text.startswith(short.text)
    assert not short.eos and not short.truncated and long.truncated
