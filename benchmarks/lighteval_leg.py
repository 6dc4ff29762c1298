"""The lighteval side of evaluate_vs_lm_eval.py: runs inside lighteval's own environment and imports nothing of ours.

    pip install lighteval==0.13.0 accelerate 'xxhash<4'   (0.13.0 hashes strings, which xxhash 4 refuses)

Reads one JSON object on standard input (model, dtype, folder, items, task, cap, batch, threads), prints one line of JSON.
lighteval shuffles its items and pads prompts on the left: both are undone in what is printed.
Its option of continuous batching is left off, as it is by default: in 0.13.0 that path knows neither the task's cap nor
the end-of-text token.
"""

import json
import os
import sys
import time

asked = json.load(sys.stdin)
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as on our side: see mind_distill/threads.py
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Its cache lies in CACHE / model name: an absolute name would put it into the model's own folder, and the next run of
# the same configuration would read answers instead of writing them.
os.symlink(os.path.abspath(asked["model"]), os.path.join(asked["folder"], "student"))
os.chdir(asked["folder"])

import torch  # noqa: E402
from lighteval.logging.evaluation_tracker import EvaluationTracker  # noqa: E402
from lighteval.metrics.metrics import Metrics  # noqa: E402
from lighteval.models.transformers.transformers_model import TransformersModelConfig  # noqa: E402
from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters  # noqa: E402
from lighteval.tasks.lighteval_task import LightevalTaskConfig  # noqa: E402
from lighteval.tasks.registry import Registry  # noqa: E402
from lighteval.tasks.requests import Doc  # noqa: E402


def as_doc(row, task_name):
    """One of our items as lighteval wants it: the chat template is applied by lighteval."""
    return Doc(task_name=task_name, query=row["turn"], choices=[row["answer"]], gold_index=0)


TASKS_TABLE = [
    LightevalTaskConfig(
        name=asked["task"],
        prompt_function=as_doc,
        hf_repo=os.path.dirname(asked["items"]),
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        metrics=[Metrics.exact_match],
        generation_size=asked["cap"],
    )
]

# Its own tasks are left out: 0.13.0 imports all of them, and tiny_benchmarks downloads a file when it is imported.
Registry._load_from_files = Registry._load_from_subdirs = staticmethod(lambda *_: {})
torch.set_num_threads(asked["threads"])
pipeline = Pipeline(
    tasks=f"{asked['task']}|0",
    pipeline_parameters=PipelineParameters(
        launcher_type=ParallelismManager.ACCELERATE,
        custom_tasks_directory=sys.modules[__name__],
        bootstrap_iters=0,
    ),
    evaluation_tracker=EvaluationTracker(output_dir="results"),
    model_config=TransformersModelConfig(
        model_name="student",
        batch_size=asked["batch"],
        dtype=asked["dtype"],
        device="cpu",
        add_special_tokens=False,  # the template writes them
        cache_dir="cache",
    ),
)
wall, processor = time.perf_counter(), time.process_time()
pipeline.evaluate()
wall, processor = time.perf_counter() - wall, time.process_time() - processor
samples = sorted(pipeline.get_details()[f"{asked['task']}|0"], key=lambda sample: int(sample.doc.id))
responses = [sample.model_response for sample in samples]
print(
    json.dumps(
        {
            "seconds": wall,
            "processor": processor,
            "texts": [response.text[0] for response in responses],
            "prompts": [list(response.input_tokens)[response.padded_tokens_count :] for response in responses],
        }
    )
)
