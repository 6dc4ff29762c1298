"""The other side of evaluate_vs_lm_eval.py: runs inside lm-evaluation-harness's own environment and imports nothing of ours.

Reads one JSON object on standard input (model, dtype, tasks folder, task, batch, threads), prints one line of JSON.
"""

import json
import os
import sys
import time

asked = json.load(sys.stdin)
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as on our side: see mind_distill/threads.py
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

torch.set_num_threads(asked["threads"])
model = HFLM(pretrained=asked["model"], dtype=asked["dtype"], device="cpu", batch_size=asked["batch"])
manager = TaskManager(include_path=asked["folder"], include_defaults=False)
wall, processor = time.perf_counter(), time.process_time()
found = simple_evaluate(
    model=model,
    tasks=[asked["task"]],
    task_manager=manager,
    apply_chat_template=True,
    bootstrap_iters=0,
    log_samples=True,
    verbosity="ERROR",
)
wall, processor = time.perf_counter() - wall, time.process_time() - processor
samples = sorted(found["samples"][asked["task"]], key=lambda sample: sample["doc_id"])
print(
    json.dumps(
        {
            "seconds": wall,
            "processor": processor,
            "texts": [sample["resps"][0][0] for sample in samples],
            "prompts": [model.tok_encode(sample["arguments"][0][0]) for sample in samples],
        }
    )
)
