"""Write the sample files beside this one: the formats of W&B and of the lm-evaluation-harness, with planted losses.

No model was trained for them: every loss follows from LAWS, so that tests know what is to come out.
"""

import csv
import json
import math
import random
import shutil
from pathlib import Path

HERE = Path(__file__).parent
# L = E + A N^-alpha + B D^-beta: in bits per byte, in nats per target, and two in nats per token
LAWS = {
    "wikitext": (0.55, 60.0, 300.0, 0.3, 0.3),
    "lambada": (1.2, 200.0, 1500.0, 0.3, 0.3),
    "code": (0.9, 250.0, 900.0, 0.38, 0.36),
    "prose": (1.8, 480.0, 2100.0, 0.35, 0.37),
}
SIZES = {"tiny-70m": 70_426_624, "tiny-160m": 162_322_944, "tiny-410m": 405_334_016, "tiny-1b": 1_011_781_632}
STEPS = (8_000, 16_000, 32_000, 64_000)
BATCH = 2**21  # tokens a step


def loss(skill: str, n_params: float, n_tokens: float) -> float:
    """The planted loss."""
    E, A, B, alpha, beta = LAWS[skill]
    return E + A * n_params**-alpha + B * n_tokens**-beta


def result_file(model: str, step: int, n_params: int, number: int) -> dict:
    """One results_*.json as lm_eval 0.4 writes it for a Hugging Face model."""
    bits = loss("wikitext", n_params, step * BATCH)
    perplexity = math.exp(loss("lambada", n_params, step * BATCH))
    name = f"lab/{model}"
    return {
        "results": {
            "lambada_openai": {
                "alias": "lambada_openai",
                "perplexity,none": perplexity,
                "perplexity_stderr,none": perplexity * 0.03,
                "acc,none": 0.3 + 0.01 * number,
                "acc_stderr,none": 0.0064,
            },
            "wikitext": {
                "alias": "wikitext",
                # 5.34 bytes a word
                "word_perplexity,none": 2 ** (bits * 5.34),
                "word_perplexity_stderr,none": "N/A",
                "byte_perplexity,none": 2**bits,
                "byte_perplexity_stderr,none": "N/A",
                "bits_per_byte,none": bits,
                "bits_per_byte_stderr,none": "N/A",
            },
        },
        "group_subtasks": {"lambada_openai": [], "wikitext": []},
        "configs": {
            "wikitext": {
                "task": "wikitext",
                "dataset_path": "EleutherAI/wikitext_document_level",
                "output_type": "loglikelihood_rolling",
                "metric_list": [
                    {"metric": "word_perplexity"},
                    {"metric": "byte_perplexity"},
                    {"metric": "bits_per_byte"},
                ],
                "metadata": {"version": 2.0},
            }
        },
        "versions": {"lambada_openai": 1.0, "wikitext": 2.0},
        "n-shot": {"lambada_openai": 0, "wikitext": 0},
        "higher_is_better": {
            "lambada_openai": {"perplexity": False, "acc": True},
            "wikitext": {"word_perplexity": False, "byte_perplexity": False, "bits_per_byte": False},
        },
        "n-samples": {
            "lambada_openai": {"original": 5153, "effective": 5153},
            "wikitext": {"original": 62, "effective": 62},
        },
        "config": {
            "model": "hf",
            "model_args": f"pretrained={name},revision=step{step},dtype=bfloat16",
            "model_num_parameters": n_params,
            "model_dtype": "torch.bfloat16",
            "model_revision": f"step{step}",
            "model_sha": f"{number:040x}",
            "batch_size": "16",
            "batch_sizes": [],
            "device": "cuda:0",
            "use_cache": None,
            "limit": None,
            "bootstrap_iters": 100000,
            "gen_kwargs": None,
            "random_seed": 0,
            "numpy_seed": 1234,
            "torch_seed": 1234,
            "fewshot_seed": 1234,
        },
        "git_hash": "unknown",
        "date": 1740000000.5 + 600 * number,
        "transformers_version": "4.49.0",
        "lm_eval_version": "0.4.8",
        "upper_git_hash": None,
        "task_hashes": {},
        "model_source": "hf",
        "model_name": name,
        "model_name_sanitized": name.replace("/", "__"),
        "total_evaluation_time_seconds": "231.7",
    }


def write_harness(folder: Path) -> None:
    """A folder a model, a file a checkpoint, and the table of what the files don't know."""
    rows = []
    for number, (model, step) in enumerate((model, step) for model in SIZES for step in STEPS):
        place = folder / f"lab__{model}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"results_2025-02-{1 + number // 4:02d}T{8 + number % 4:02d}-00-00.123456.json"
        path.write_text(json.dumps(result_file(model, step, SIZES[model], number), indent=2) + "\n")
        rows.append(
            {"model": f"lab/{model}", "revision": f"step{step}", "n_params": SIZES[model], "n_tokens": step * BATCH}
        )
    with (folder / "checkpoints.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def wandb_runs() -> list[dict]:
    """Rows of a run table: what W&B knows of a run, then its config, then its summary."""
    rng = random.Random(1)
    rows = []
    for number, (model, step) in enumerate((model, step) for model in SIZES for step in STEPS):
        tokens = step * BATCH
        code, prose = (loss(skill, SIZES[model], tokens) for skill in ("code", "prose"))
        name = f"{('amber', 'brisk', 'calm', 'dusty')[number % 4]}-{('fox', 'oak', 'sea', 'sky')[number // 4]}"
        known = {"Name": f"{name}-{number + 1}", "State": "finished", "Notes": "-", "User": "lab", "Tags": ""}
        known |= {"Created": f"2025-02-{number + 1:02d}T08:00:00.000Z", "Runtime": 3600 + 60 * number, "Sweep": ""}
        settings = {"batch_tokens": BATCH, "data": "c4", "lr": 0.001, "model.n_layer": 6 + number // 4}
        settings |= {"model.n_params": SIZES[model], "seed": number % 2}
        summary = {"_step": step, "eval/code/loss": code, "eval/prose/loss": prose}
        summary |= {"eval/prose/perplexity": math.exp(prose), "tokens": tokens}
        rows.append({**known, **settings, **summary, "train/loss": prose + rng.uniform(-0.1, 0.1)})
    unfinished = rows[3] | {"Name": "dusty-fox-17", "State": "crashed", "tokens": 4_000 * BATCH, "eval/prose/loss": 9.0}
    running = rows[5] | {"Name": "calm-oak-18", "State": "running", "eval/code/loss": "NaN"}
    return [*rows, unfinished, running]


def write_wandb(folder: Path) -> None:
    """The run table, and the histories of four runs in the two ways they are written."""
    rows = wandb_runs()
    (folder / "histories").mkdir(parents=True, exist_ok=True)
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for at, model in enumerate(SIZES):
        name = rows[3 + 4 * at]["Name"]
        history = []
        for step in range(2_000, STEPS[-1] + 1, 2_000):
            tokens = step * BATCH
            row = {"_step": step, "_timestamp": 1740000000.25 + step, "_runtime": step / 10, "tokens": tokens,
                   "train/loss": loss("prose", SIZES[model], tokens) + 0.02}  # fmt: skip
            if step in STEPS:
                row |= {f"eval/{skill}/loss": loss(skill, SIZES[model], tokens) for skill in ("code", "prose")}
            history.append(row)
        if at % 2:
            lines = [json.dumps(row) for row in history]
            (folder / "histories" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        else:
            names = list(history[3])
            with (folder / "histories" / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(history)
    with (folder / "histories" / "sizes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Name", "State", "model.n_params"])
        writer.writerows(
            [row["Name"], row["State"], row["model.n_params"]] for row in rows if row["_step"] == STEPS[-1]
        )


if __name__ == "__main__":
    for kind, write in (("lm_eval", write_harness), ("wandb", write_wandb)):
        shutil.rmtree(HERE / kind, ignore_errors=True)
        write(HERE / kind)
