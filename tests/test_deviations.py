"""Where a run departs from the paper: said where it does, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from salad.deviations import deviations
from salad.recipe import Recipe

PAPER: dict[str, Any] = {
    "name": "paper",
    "voice": "kokoro-af_heart",
    "embedder": "BAAI/bge-large-en-v1.5",
    "model": {
        "llm": "Qwen/Qwen2.5-3B",
        "train_llm": "full",
        "encoder": "kyutai/mimi",
        "adapter": {"kind": "paper"},
    },
    "data": {"human": "libriheavy", "text": "fineweb-edu.jsonl"},
    "stage_one": {"warm_start": {"steps": 0}},
    "stage_two": {"num_clusters": 128, "warm_start": {"steps": 0}},
}


def of(**changes: Any) -> list[str]:
    """The deviations of the paper's recipe with some groups' keys changed."""
    tree = {**PAPER}
    for group, keys in changes.items():
        tree[group] = {**PAPER.get(group, {}), **keys}
    return deviations(Recipe.model_validate(tree))


def test_the_papers_recipe_departs_nowhere() -> None:
    assert of() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage_one": {"alpha": 0.5}}, "Stage I gives distillation the weight 0.5"),
        ({"stage_two": {"divergence": "reverse_kl"}}, "Stage II trains the reverse KL from the teacher"),
        (
            {key: {"divergence": "jsd", "jsd_beta": 0.3} for key in ("stage_one", "stage_two")},
            "Each stage trains the generalized Jensen-Shannon divergence from the teacher (teacher's weight 0.3)",
        ),
        ({"stage_one": {"text_frac": 0.5}}, "Of Stage I's sequences 50% are text"),
        ({"stage_two": {"warm_start": {"steps": 9}}}, "The adapter gets a word-aligned warm start before Stage II; "),
        ({"stage_one": {"warm_start": {"kind": "ctc"}}}, "The adapter gets a CTC warm start before Stage I; "),
        (
            {key: {"warm_start": {"steps": 9}} for key in ("stage_one", "stage_two")},
            "The adapter gets a word-aligned warm start before each stage; ",
        ),
        ({"stage_one": {"curriculum": {}}}, "Stage I begins with shorter speech, which grows; "),
        ({"sequence": {"speech_words": (5, 20)}}, "Spans of speech are of 5 to 20 words; the paper's of 5 to 15."),
        ({"sequence": {"text_words": (3, 6)}}, "Spans of text are of 3 to 6 words; the paper's of 10 to 30."),
        ({"stage_two": {"budget_frac": 0.014}}, "The synthetic speech is 1.4% of the natural speech; "),
        ({"stage_three": {}}, "There is a Stage III: of its speech sequences 100% are continued by the student itself"),
        (
            {"stage_three": {"divergence": "reverse_kl"}},
            "the text LLM, by the reverse KL; the paper has none",
        ),
        ({"stage_three": {"on_policy_frac": 0.0}}, "There is a Stage III, off-policy"),
        ({"model": {"adapter": {"kind": "stack", "num_layers": 3, "hidden_size": 960}}}, "a stack of 3 Transformer"),
        ({"model": {"adapter": {"kind": "conv", "num_layers": 0}}}, "The adapter is strided convolutions; "),
        ({"model": {"train_llm": "frozen"}}, "The LLM is trained not at all"),
        ({"sequence": {"policy": "utterance"}}, "Sequences follow the policy utterance; "),
        ({"stage_two": {"score": "jsd"}}, "Clusters are weighed by jsd; "),
        ({"stage_two": {"gamma": 0}}, "γ is 0; the paper's is 5."),
        ({"stage_two": {"max_boost": 4}}, "What is drawn is kept from a few clusters"),
        ({"stage_two": {"budget_frac": None, "budget_h": 12}}, "The synthetic speech is 12 h; "),
        ({"augment": {"noise_frac": 0.5}}, "Synthetic speech is augmented"),
    ],
    ids=str,
)
def test_each_departure_is_one_sentence(changes: dict[str, Any], said: str) -> None:
    warm = {"warm_start": {"steps": 0}, "num_clusters": 128}
    stages = {"stage_one": {"warm_start": {"steps": 0}}, "stage_two": warm}
    full = {group: {**stages.get(group, {}), **keys} for group, keys in changes.items()}
    (sentence,) = of(**full)
    assert said in sentence
    assert sentence.endswith(".")


def test_a_pool_of_voices_and_another_embedder_are_said() -> None:
    pool = [{"name": "kokoro-af_heart"}, {"name": "piper-joe", "weight": 2}]
    said = deviations(Recipe.model_validate(PAPER | {"voice": pool, "embedder": "minilm-l6"}))
    assert said == [
        "Texts are embedded by minilm-l6; the paper's embedder is BAAI/bge-large-en-v1.5.",
        "The voices are kokoro-af_heart, piper-joe; the paper's is Kokoro's af_heart.",
    ]
