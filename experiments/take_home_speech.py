"""What the model that comes with salad learns words from, besides human speech: the lab's spoken texts, and questions.

    python -m experiments.take_home_speech     # then: salad run recipes/take-home.yaml (docs/take-home.md)

Definitions are no questions. 2,000 questions about WordNet's words, by the templates below, are spoken by the lab's
eight voices, piper-joe as often as all others together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.lab_data import VOICES, LabData, alone
from salad.randomness import generator
from salad.recipe import VoiceSettings
from salad.texts.text import Text, read_texts
from salad.texts.wordnet import LICENCE

NUM_QUESTIONS = 2000
QUESTIONS = {
    "person": (
        "Who was {word}?",
        "Do you know who {word} was?",
        "When was {word} born, and where?",
        "What is {word} known for?",
        "Please tell me something about {word}.",
    ),
    "place": (
        "Where is {word}?",
        "Which country is {word} in?",
        "How far is it from here to {word}?",
        "Have you ever heard of {word}?",
        "What can I see and do in {word}?",
    ),
    "noun": (
        "What is {a} {word}?",
        "What does the word {word} mean?",
        "Can you tell me what {a} {word} is?",
        "How would you explain {a} {word} to a child?",
        "How many kinds of {word} are there?",
        "Please give me an example of {a} {word}.",
        "What is the difference between {a} {word} and {other_a} {other}?",
        "Which is bigger, {a} {word} or {other_a} {other}?",
        "Why would anyone need {a} {word}?",
        "Could you write a short story about {a} {word}?",
    ),
    "verb": (
        "How do you {word} something?",
        "Why do people {word}?",
        "What does it mean to {word}?",
        "When should I {word}, and when should I not?",
        "Is it hard to {word}?",
        "Who taught you to {word}?",
    ),
    "adjective": (
        "What is the opposite of {word}?",
        "Is it good or bad to be {word}?",
        "Can you name something that is {word}?",
        "What does it mean if someone is {word}?",
        "Is {word} the same as {other}?",
    ),
}


def questions(texts: Sequence[Text], num: int, seed: int) -> list[Text]:
    """Questions about the words that WordNet's definitions belong to; ids are "q-0" and on."""
    rng = generator(seed, "questions")
    of_kind: dict[str, list[str]] = {name: [] for name in QUESTIONS}
    for text in texts:
        kind = _kind(text)
        if kind is not None and len(text.title.split()) <= 2:
            of_kind[kind].append(text.title)
    shares = {"person": 0.06, "place": 0.08, "noun": 0.52, "verb": 0.2, "adjective": 0.14}
    found = []
    for number in range(num):
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        word, other = (str(one) for one in rng.choice(of_kind[kind], 2, replace=False))
        template = str(rng.choice(QUESTIONS[kind]))
        said = template.format(word=word, a=_article(word), other=other, other_a=_article(other))
        found.append(Text(f"q-{number}", said, f"question.{kind}", "templates over WordNet 3.0", LICENCE))
    return found


def _kind(text: Text) -> str | None:
    """Which templates a text's headword fits."""
    title, capital = text.title, text.title[:1].isupper()
    if not title.replace(" ", "").replace("-", "").isalpha():
        return None
    if text.domain == "noun.person" and capital:
        return "person"
    if text.domain == "noun.location" and capital:
        return "place"
    if capital:
        return None
    return {"noun": "noun", "verb": "verb", "adj": "adjective"}.get(text.domain.split(".")[0])


def _article(word: str) -> str:
    return "an" if word[0].lower() in "aeiou" else "a"


def main() -> None:
    """The lab's data, then the questions, spoken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lab", type=Path, default=Path("runs/lab"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    data = LabData(options.lab, threads=options.threads)
    data.prepare()
    texts = read_texts(data.run.path("texts", "pool.jsonl"))
    weights = {voice: 7.0 if voice == "piper-joe" else 1.0 for voice in VOICES}
    pool = [VoiceSettings(name=voice, speed=(0.9, 1.15), weight=weight) for voice, weight in weights.items()]
    with alone(data.folder / "questions.lock"):
        data.speak("questions", questions(texts, NUM_QUESTIONS, 0), pool)


if __name__ == "__main__":
    main()
