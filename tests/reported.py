"""Results and measurements to draw: full ones, partial ones, and ones full of hostile text."""

from __future__ import annotations


def estimate(value, half=0.1, n=120):
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def arm(name, m, hearing, f, speech, steps, warm=0):
    return {
        "name": name,
        "misalignment_nats": estimate(m, 0.13),
        "misalignment_swapped_nats": estimate(m + hearing, 0.14),
        "hearing_nats": estimate(hearing, 0.06),
        "misalignment_human_nats": estimate(m * 0.8, 0.3, 40),
        "hearing_human_nats": estimate(hearing, 0.2, 40),
        "forgetting_nats": {"value": f, "low": f * 0.9, "high": f * 1.1, "n": 120},
        "hears": hearing > 0.06,
        "task": {"text": estimate(0.575, 0.15, 40), "speech": estimate(speech, 0.15, 40)},
        "split": {
            "gap": estimate(0.6 - speech, 0.12, 40),
            "forgotten": estimate(0.025, 0.05, 40),
            "heard": estimate(0.575 - speech, 0.11, 40),
        },
        "law": None
        if warm == 0
        else {"E_nats": estimate(0.9 * m), "B": estimate(9.0, 2.0), "beta": estimate(0.5), "r2": 0.98, "warnings": []},
        "watch": [watched(i, m) for i in range(5, steps, 6)],
        "curve": [
            {
                "step": i,
                "kl_nats": 0.6 * m + (2.4 if name == "stage_one" else 0.4) / (1 + i / 6) + 0.1 * (i % 3),
                "positions": 900,
                "speech_positions": 400,
                "seconds": 2.5,
            }
            for i in range(steps)
        ],
        "warm_start": [
            {"step": 10 * i, "loss_nats": 6 / (1 + i / 9), "right_frac": 0.6 * i / (i + 12)} for i in range(warm)
        ],
    }


def law(floor):
    return {"E_nats": estimate(floor), "B": estimate(9.0, 2.0), "beta": estimate(0.5), "r2": 0.98, "warnings": []}


def watched(step, m):
    seen = 0.9 * m + 9.0 * (900 * (step + 1)) ** -0.5 + 0.01 * (step % 2)
    return {
        "step": step,
        "misalignment_nats": estimate(seen, 0.2, 8),
        "forgetting_nats": estimate(0.03 * step / 60, 0.005, 8),
        "hearing_nats": estimate(0.4, 0.1, 8),
        "alarm": None,
    }


def sample(audio, m):
    return {"text": "any of various gastropods", "audio": audio, "misalignment_nats": m, "cer": 0.1}


def cluster(number, name, m, excluded=None, num_probes=12):
    return {
        "cluster": number,
        "name": name,
        "size": 500,
        "examples": ["any of various large edible marine gastropods", "a tool for cutting"],
        "misalignment_nats": m,
        "standard_error_nats": 0.12,
        "teacher_entropy_nats": 2.9 + m / 4,
        "mean_cer": 0.07,
        "num_probes": num_probes,
        "excluded": excluded,
        "share": 0.125,
        "x": (number * 0.37) % 1,
        "y": (number * 0.61) % 1,
        "after": {"stage_two": {"misalignment_nats": None if m is None else 0.8 * m, "standard_error_nats": 0.1}},
        "samples": [
            {"text": "any of various gastropods", "audio": f"probe/{number}.flac", "misalignment_nats": m, "cer": 0.1}
        ],
        "target": 0.0 if excluded else m**5 / 342,
        "selected": 0 if excluded else round(96 * m**5 / 342),
        "selected_uniform": 0 if excluded else 16,
    }


def full():
    names = "animals plants places feelings chemistry tools people actions".split()
    clusters = [cluster(i, f"{name}, genus, family", 2.6 - 0.13 * i) for i, name in enumerate(names)]
    clusters[4] = cluster(4, "chemistry", 3.1, "mean character error rate 0.41 is above 0.30")
    clusters[6] = cluster(6, "people", 0.0, "no usable probe", num_probes=0)
    return {
        "schema": 1,
        "name": "demo",
        "seed": 0,
        "command": "salad run recipes/demo.yaml",
        "versions": {"salad": "0.1.0", "python": "3.11.2", "torch": "2.11.0"},
        "recipe": {
            "name": "demo",
            "seed": 0,
            "voice": "piper-joe",
            "model": {"llm": "smollm2-135m-instruct", "encoder": "whisper-tiny.en", "adapter": {"kind": "mlp"}},
            "stage_two": {"gamma": 5.0, "num_clusters": 8},
        },
        "deviations": ["SmolLM2-135M-Instruct instead of Qwen2.5-3B.", "A word-aligned warm start, which is ours."],
        "conditions": {
            "policy": "speech_prefix",
            "broad": {"corpus": "WordNet 3.0", "voice": "piper-joe"},
            "human": {"corpus": "debian-prompts", "voice": "one speaker"},
            "warm_start": True,
        },
        "arms": [
            arm("untrained", 3.42, 0.01, 0.0, 0.25, 0),
            arm("stage_one", 2.21, 0.31, 0.021, 0.325, 60, warm=40),
            arm("stage_two", 1.93, 0.62, 0.034, 0.4, 40, warm=30),
            arm("stage_two_uniform", 1.97, 0.58, 0.033, 0.375, 40, warm=30),
        ],
        "topline": estimate(0.6, 0.15, 40),
        "cascade": estimate(0.525, 0.15, 40),
        "task": {"name": "definition", "version": 1, "chance": 0.25},
        "comparisons": [
            compared("stage_one", "untrained", 1.21, 0.11),
            compared("stage_two", "stage_one", 0.28, 0.07),
            compared("stage_two", "stage_two_uniform", 0.04, 0.06),
        ],
        "clusters": clusters,
        "speech": {
            "human_s": 1500.0,
            "synthetic_s": 1480.2,
            "synthetic_uniform_s": 1475.9,
            "heldout_s": 42.04,
            "probe_s": 510000,
        },
        "rejected": [{"where": "synthesize", "reason": "the recognizer could not read it back", "count": 3}],
        "bill": [
            {
                "stage": "stage_one",
                "steps": 60,
                "position_hz": 6.25,
                "sources": [
                    {
                        "kind": "speech",
                        "name": "debian-prompts",
                        "num_items": 196,
                        "num_sequences": 500,
                        "epochs": 2.55,
                        "hours": 0.23,
                        "hours_heard": 1.067,
                        "num_speech_positions": 24000,
                        "num_text_positions": 30000,
                        "origins": [{"licence": "CC-BY-SA-3.0", "terms": ["share-alike"]}],
                    }
                ],
            }
        ],
        "wall_s": {"assets": 0.4, "stage-one": 212.5, "measure": 3725.0},
        "trained_on": {
            "stage_one": {"ranks": 1, "parallel": None, "device": "CPU"},
            "stage_two": {"ranks": 8, "parallel": "fsdp", "device": "NVIDIA H100"},
            "stage_two_uniform": {"ranks": 8, "parallel": "fsdp", "device": "NVIDIA H100"},
        },
    }


def compared(better, than, value, half, metric="misalignment_nats"):
    return {"better": better, "than": than, "metric": metric, "difference": estimate(value, half)}


def with_arms(*names):
    results = full()
    results["arms"] = [a for a in results["arms"] if a["name"] in names]
    results |= {"clusters": [], "comparisons": []}
    return results


HOSTILE = "<script>alert(1)</script>\"'$x$ --> ]]> &amp; \x00\x08\ud800 漢字\n$\\frac{"


def hostile():
    results = spoiled(full())
    for row, good in zip(results["arms"], full()["arms"], strict=True):
        row["name"] = good["name"]  # these are not free
    for row in results["clusters"]:
        row["after"] = {HOSTILE: row["after"]["stage_two"]}
    return results | {"wall_s": {HOSTILE: 1.0}, "recipe": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}}


def split(topline, own_text, own_transcript, speech, n=80):
    arms = {"topline": topline, "own_text": own_text, "own_transcript": own_transcript, "speech": speech}
    parts = {
        "gap": topline - speech,
        "forgotten": topline - own_text,
        "heard_wrong": own_text - own_transcript,
        "misaligned": own_transcript - speech,
    }
    return {name: estimate(value, 0.05, n) for name, value in (arms | parts).items()}


def measured_task(name, shift=0.0, categories=("biology", "chemistry", "law")):
    whole = split(0.62 + shift, 0.61 + shift, 0.58 + shift, 0.52 + shift)
    by = {label: split(0.6 + 0.03 * i, 0.6, 0.55, 0.5 - 0.05 * i, 30) for i, label in enumerate(categories)}
    nats = {"forgetting": estimate(0.03, 0.01), "misalignment": estimate(0.9), "base_to_speech": estimate(1.0)}
    conditions = [
        {
            "voice": voice,
            "condition": condition,
            "speech": estimate(0.5 - harm, 0.05),
            "gap": estimate(0.12 + harm, 0.04),
            "misalignment": estimate(0.9 + 3 * harm, 0.1),
        }
        for voice in ("piper-joe", "kokoro-heart")
        for condition, harm in (("clean", 0.0), ("noise at 10 dB", 0.06), ("telephone", 0.03))
    ]
    return {
        "task": name,
        "task_version": 1,
        "listening": {"listens": True, "sentence": "The model listens.", "by_alteration": {}},
        "gap": {
            "task": name,
            "voices": ["piper-joe", "kokoro-heart"],
            "whole": whole,
            "by_voice": {"piper-joe": whole, "kokoro-heart": whole},
            "by_group": {"category": by},
            "missing": {"speech/piper-joe": ["a"]},
            "num_missing": {"speech/piper-joe": 1},
        },
        "cascade": estimate(0.57 + shift, 0.05),
        "cascade_gap": estimate(0.05, 0.03),
        "nats_per_token": {**nats, "by_group": {"category": dict.fromkeys(categories, nats)}, "why_not": {}},
        "conditions": conditions,
        "p_value": 0.0004,
        "resolved": "With 80 items 12 points are resolved.",
        "chance": 0.25,
        "written": {"topline": written(80, 0), "speech/piper-joe": written(78, 3)},
        "unscorable": {
            "speech/piper-joe": {"x-1": "the speech is longer than 30 s", "x-2": "the speech is longer than 30 s"}
        },
    }


def written(answers, unread):
    right = {"declared": 0.5, "voicebench": 0.51, "lmms_eval": 0.25, "guessing": 0.515}
    return {"num_answers": answers, "num_unread": unread, "accuracy_by_rule": right}


def free_answers():
    arms = [
        {
            "arm": arm,
            "voice": voice,
            "condition": "",
            "num_answered": 40,
            "contains": estimate(held, 0.1, 40),
            "f1": estimate(0.3, 0.05, 40),
            "behind": None,
            "nll_nats": estimate(2.1, 0.2, 40),
            "likeness": None,
            "num_empty": 1,
            "unanswered": {"x-3": "the speech is longer than 30 s"},
        }
        for arm, voice, held in (("topline", "", 0.5), ("speech", "piper-joe", 0.4))
    ]
    return {"arms": arms, "listens": True, "guard": "Other speech changes answers.", "likeness_by": "minilm-l6"}


def measurement(*names):
    names = names or ("mmsu", "arc_easy")
    return {
        "model": "runs/demo",
        "seed": 0,
        "base": "smollm2-135m-instruct",
        "asr": "whisper-tiny.en",
        "rule": "token",
        "shots": 5,
        "listens": True,
        "tasks": {name: measured_task(name, -0.05 * i) for i, name in enumerate(names)},
        "speech_sha256": dict.fromkeys(names, "8f11" * 16),
        "mean": split(0.6, 0.59, 0.56, 0.5),
        "open": {names[0]: free_answers()},
        "corpus": {"policy": "utterance", "misalignment_nats": estimate(1.2), "hears": True},
        "p_value_holm": dict.fromkeys(names, 0.0008),
        "out": "measured/demo",
    }


def spoiled(value):
    """Every text hostile, keys of data as well."""
    if isinstance(value, dict):
        return {key: spoiled(v) for key, v in value.items()}
    if isinstance(value, list):
        return [spoiled(v) for v in value]
    return HOSTILE if isinstance(value, str) else value
