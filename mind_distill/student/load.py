"""The student: a causal language model with LoRA on all linear layers, and how it is found, saved and loaded."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from mind_distill.config import Settings
from mind_distill.errors import UserError
from mind_distill.processes import Processes
from mind_distill.records import Lesson, Path
from mind_distill.runs import read_settings
from mind_distill.student.adapters import EXPERT, activate, add_adapters
from mind_distill.student.batching import Batch, Layout
from mind_distill.student.lora import compute_in_base_precision
from mind_distill.student.packages import embedded_student, local_or_hub
from mind_distill.student.reading import View, Work, read
from mind_distill.student.sharding import in_step
from mind_distill.tasks.prompts import AnswerFormat, Task
from mind_distill.threads import choose

Precision = Literal["auto", "bf16", "fp32"]
Tuning = Literal["lora", "full", "qlora"]


class LoraSettings(Settings):
    """LoRA on all linear layers of attention and feed-forward (Table 8; rank, alpha and dropout are not in the paper)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers that get an adapter; names such as [q_proj, v_proj] for the baselines' own settings."""


class Found(NamedTuple):
    """A student's weights: the base folder or hub id, adapters to lay on it in order, and what its run was trained with.

    `further` are adapters that stand in for the last one on the benchmarks they are named after.
    """

    base: str
    adapters: tuple[FilePath, ...] = ()
    answer_format: AnswerFormat | None = None
    precision: Precision | None = None
    tuned: bool = False  # the base itself was trained: its float32 weights are read as they are unless asked otherwise
    task: Task = "solve"
    further: tuple[FilePath, ...] = ()


def find_student(source: str | FilePath) -> Found:
    """Where a student named 'embedded', a hub id, a folder, a PEFT adapter folder or a run directory keeps its weights."""
    if str(source) == "embedded":
        return Found(str(embedded_student()))
    folder = FilePath(source)
    if (folder / "run.json").is_file():
        return _find_in_run(folder)
    if (folder / "adapter_config.json").is_file():
        if (folder.parent / "run.json").is_file():
            return _find_in_run(folder.parent)
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        below = find_student(base)
        return below._replace(adapters=(*below.adapters, folder))
    return Found(local_or_hub(str(source)))


def _find_in_run(folder: FilePath) -> Found:
    settings, info = read_settings(folder), json.loads((folder / "run.json").read_text(encoding="utf-8"))
    first = folder / "first"  # a stage that the same recipe trained before
    below = find_student(first if (first / "run.json").is_file() else settings["student"])
    form, precision = settings["answer_format"], settings["training"]["precision"]
    task = info.get("task", "solve")
    if not info.get("trains", True):
        return Found(below.base, below.adapters, form, precision, below.tuned)
    if (folder / "model" / "config.json").is_file():
        return Found(str(folder / "model"), (), form, precision, tuned=True, task=task)
    adapter = folder / "adapter"
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UserError(f"{folder}: this run has no finished adapter yet. Continue it with --resume, then try again.")
    further = sorted(path.parent for path in folder.glob("adapters/*/adapter_model.safetensors"))
    further = [path for path in further if not path.name.startswith(EXPERT)]
    return Found(below.base, (*below.adapters, adapter), form, precision, below.tuned, task, tuple(further))


def find_answer_format(source: str) -> AnswerFormat:
    """The form a run was trained with, else the student's default."""
    if (FilePath(source) / "settings.yaml").is_file():
        return find_student(source).answer_format or default_answer_format(source)
    return default_answer_format(source)


def default_answer_format(source: str) -> AnswerFormat:
    """`sentence` for the embedded student, which writes a box in 1 % of its answers; `boxed` for every other."""
    return "sentence" if source == "embedded" else "boxed"


def resolve_precision(precision: Precision) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, else float32; losses are float32 either way."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


class Student:
    """A model that reads Batches and answers questions. Methods use it only through `lay_out` and `read`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        answer_format: AnswerFormat,
        slots: int,
        micro_batch: int,
        max_tokens: int,
        task: Task = "solve",
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.answer_format = answer_format
        self.layout = Layout(tokenizer, answer_format, slots, max_tokens, task)
        self.micro_batch = micro_batch
        self.work = Work()  # of all readings so far
        self.experts: tuple[str, ...] = ()  # adapters trained beside one another; () = `default` alone
        self.autocast: torch.dtype | None = None  # read in this type over weights of another (full fine-tuning)
        self.in_step_with: Processes | None = None  # set where the layers are sharded

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def lay_out(self, lessons: Sequence[Lesson], paths: Sequence[Sequence[Path]]) -> Batch:
        """The Batch of these lessons' paths, on the student's device."""
        return self.layout.lay_out(lessons, paths).to(self.device)

    def read(self, batch: Batch, grad: Tensor | None = None, run: Tensor | None = None, answers: bool = False) -> View:
        """The student's losses on the batch (reading.read); `grad` and `run` are bool [B, K], None means all valid."""
        if self.experts:
            activate(self.model, batch.adapter, self.experts)
        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            if self.in_step_with is None:
                view = read(self.model, batch, grad, run, answers, self.micro_batch)
            else:
                view = self._read_in_step(self.in_step_with, batch, grad, run, answers)
        self.work = self.work.plus(view.work)
        return view

    def _read_in_step(
        self, processes: Processes, batch: Batch, grad: Tensor | None, run: Tensor | None, answers: bool
    ) -> View:
        """What any process wants is read by all (sharding.in_step), text by text; the view holds what was asked here."""
        grad = batch.valid if grad is None else grad & batch.valid
        run = batch.valid if run is None else (run | grad) & batch.valid
        filled, grad_anywhere, run_anywhere = in_step(batch, grad, run, processes)
        view = read(self.model, filled, grad_anywhere, run_anywhere, answers, self.micro_batch, share=False)
        logprobs = view.answer_logprobs
        return replace(
            view,
            nll=view.nll * run,
            token_nll=view.token_nll * run[..., None],
            answer_logprobs=None if logprobs is None else logprobs * run[..., None, None],
            ran=run,
        )

    def grow(self, names: Sequence[str], seed: int) -> None:
        """Fresh adapters of these names to train, in place of `default`."""
        self.experts = tuple(names)
        add_adapters(self.model, self.experts, seed)

    def answer_as(self, benchmark: str) -> None:
        """Answer with the adapter that the run has for this benchmark (MoDE), else with its only one."""
        known = getattr(self.model, "peft_config", {})
        if len(known) > 1:
            name = benchmark.replace(".", "_")
            self.model.set_adapter(name if name in known else "default", inference_mode=True)

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters by name, in a fixed order."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def load_tokenizer(base: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as problem:
        raise UserError(f"No tokenizer for student '{base}': {_on_one_line(problem)}") from None


def load_model(found: Found, precision: Precision, merge: bool, four_bits: bool = False) -> Any:
    """The causal language model with its adapters, nothing trainable.

    The last adapter is kept apart in float32 over the base, exactly as it was trained, unless `merge` (a new adapter is
    to be trained on top). Merging into bfloat16 weights would round about half of the update away, so a base that had
    an adapter merged into it stays in float32 unless a precision is asked for.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    merged = found.adapters if merge else found.adapters[:-1]
    exact = precision == "auto" and (bool(merged) or found.tuned)
    dtype = torch.float32 if exact else resolve_precision(precision)
    if four_bits:
        return quantised(found, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(found.base, dtype=torch.float32 if merged else dtype)
    except (OSError, ValueError) as problem:
        raise UserError(f"No model for student '{found.base}': {_on_one_line(problem)}") from None
    for adapter in merged:
        model = _with_adapter(model, adapter).merge_and_unload()
    model = model.to(dtype)
    for adapter in found.adapters[len(merged) :]:
        model = _with_adapter(model, adapter)
    if not merge and found.adapters:
        for adapter in found.further:
            model.load_adapter(adapter, adapter_name=adapter.name.replace(".", "_"))
        model.set_adapter("default")
    model.requires_grad_(False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def open_student(
    source: str, precision: Precision | None, threads: int | Literal["auto"], form: AnswerFormat | None = None
) -> tuple[Student, str]:
    """A frozen student to ask or to read with, and what identifies it: the content of its files, precision and form."""
    from mind_distill.student.identity import identity_of

    torch.set_num_threads(choose(threads))
    found = find_student(source)
    answer_format = form or found.answer_format or default_answer_format(source)
    model = load_model(found, precision or found.precision or "auto", merge=False)
    identity = f"{identity_of(found)} {model.dtype} {answer_format}"
    tokenizer = load_tokenizer(found.base)
    student = Student(model, tokenizer, answer_format, slots=1, micro_batch=4, max_tokens=4096, task=found.task)
    return student, identity


def quantised(found: Found, dtype: torch.dtype) -> Any:
    """The base in 4-bit NormalFloat with computations in `dtype`, ready for LoRA (QLoRA)."""
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        lacking = (
            "bitsandbytes, which is not installed" if torch.cuda.is_available() else "a CUDA GPU, and there is none"
        )
        raise UserError(
            f"training.tuning=qlora needs {lacking}. Use training.tuning=lora, or run on a GPU with `pip install bitsandbytes`."
        )
    if found.adapters:
        raise UserError("training.tuning=qlora cannot start from a run with an adapter; export it with --merged first.")
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    device = {"": torch.cuda.current_device()}
    model = AutoModelForCausalLM.from_pretrained(found.base, dtype=dtype, quantization_config=how, device_map=device)
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def _with_adapter(model: Any, adapter: FilePath) -> Any:
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=True)
    except (OSError, ValueError, RuntimeError) as problem:
        raise UserError(f"{adapter} does not fit its base model: {_on_one_line(problem)}") from None
    return compute_in_base_precision(wrapped)


def add_lora(model: Any, lora: LoraSettings, seed: int, base: str) -> Any:
    """The model with a fresh LoRA adapter `default` on the linear layers named, in float32 over whatever the base is."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.modules if isinstance(lora.modules, str) else list(lora.modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ValueError as problem:  # no layer of that name
            raise UserError(f"training.lora.modules: {_on_one_line(problem)}") from None
    wrapped.peft_config["default"].base_model_name_or_path = base  # the name, not this machine's folder
    return compute_in_base_precision(wrapped)


def _on_one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
