"""The model card as Hugging Face shows it: README.md in the model's folder, drawn from its data bill.

    README.md         front matter and tables
    data_bill.json    the same for programs

Both are written beside a model that is saved; what is measured of it later is added to both. The weights are not
touched by either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from salad.card.bill import BILL_NAME, Bill, read_bill
from salad.card.licence import TERMS, hub_name, is_hub_name
from salad.card.measured import guessing, hearing, measured, results_of, table
from salad.files import read_json, write_atomic, write_json
from salad.model.saved import HASHES_NAME, WEIGHTS_NAME

CARD_NAME = "README.md"
PAPER = "[arXiv 2510.13632](https://arxiv.org/abs/2510.13632)"
SPEECH_HEAD = ("speech", "utterances", "there", "heard", "sequences", "epochs", "tokens read", "licence", "SHA-256")
TEXT_HEAD = ("text", "texts", "sequences", "epochs", "tokens read", "licence", "SHA-256")
UNDER_WAY = (
    "How far a checkpoint has come, and what was drawn until then, stands in its `state.json` (`reports`, `drawn`)."
)
HERE = "path/to/this/folder"


def write_card(folder: Path, bill: Bill) -> None:
    """Put the card and the bill beside a model that lies in `folder`, or is about to."""
    hashes = folder / HASHES_NAME
    if hashes.is_file():
        bill = bill | {"weights_sha256": read_json(hashes)[WEIGHTS_NAME]}
    write_json(folder / BILL_NAME, bill)
    write_atomic(folder / CARD_NAME, model_card(bill))


def add_results(
    folder: Path,
    arm: Mapping[str, Any],
    conditions: Mapping[str, Any],
    topline: Mapping[str, Any],
    cascade: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
) -> None:
    """Add what was measured of the model in `folder` to its card: its arm of results.json, and what M holds within.

    `topline`, `cascade` and `task` are what its accuracy is to be seen beside; of `task` it is the chance level.
    """
    write_card(folder, read_bill(folder) | {"results": results_of(arm, conditions, topline, cascade, task)})


def model_card(bill: Bill, name: str = HERE) -> str:
    """The card as Markdown with its front matter; `name` is what `salad.load` finds the model by."""
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(bill), sort_keys=False, allow_unicode=True)}---",
        f"# {bill['name']}: {bill['stage'].replace('_', ' ')}",
        _summary(bill, name),
        _uses(bill),
        "## Licences of what went in\n\n" + "\n".join(_licences(bill)),
        *[_stage(part, bill["stage"]) for part in bill["training"]],
        "## Models that went in\n\n" + table(("role", "name", "licence", "SHA-256"), map(_model, bill["models"])),
        "## Measured\n\n" + measured(bill["results"]),
        "## Where it departs from the paper\n\n" + _list(bill["deviations"] or ["Nowhere that its recipe tells."]),
        _made(bill),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(bill: Bill) -> dict[str, Any]:
    names = [source["name"] for source in _sources(bill)]
    languages = {source["language"] for source in _sources(bill) if source.get("language")}
    llm = hub_name(bill["recipe"]["model"]["llm"])
    datasets = [name for name in dict.fromkeys(names) if is_hub_name(name)]
    return {
        "library_name": "transformers",
        **({"base_model": llm} if llm else {}),
        "license": "other",
        "license_name": "see-the-licences-of-what-went-in",
        "license_link": CARD_NAME,
        "language": sorted(languages) or ["en"],
        "tags": ["speech", "audio", "spoken-language-model", "salad"],
        **({"datasets": datasets} if datasets else {}),
    }


def _sources(bill: Bill) -> list[Bill]:
    return [source for part in bill["training"] for source in part["sources"]]


def _summary(bill: Bill, name: str) -> str:
    settings = bill["recipe"]["model"]
    if not bill["training"]:
        made = "Nothing of it is trained yet: it reads as its text LLM does, and does not hear."
    elif not bill["training"][-1]["steps"]:
        made = f"Its training is under way, or was stopped. {UNDER_WAY}"
    else:
        steps, scored = (sum(part[key] for part in bill["training"]) for key in ("steps", "num_scored_positions"))
        made = f"It has heard {_heard(bill)}. Distillation took {steps} steps and taught it at {scored:,} positions."
    return (
        f"The text LLM `{settings['llm']}` with ears: the frozen encoder `{settings['encoder']}` and an adapter, made "
        f"with salad after the paper {PAPER}. {made}\n\n"
        f"{_loading(bill, name)}\n\n"
        f"`{BILL_NAME}` has all of this for programs."
    )


def _heard(bill: Bill) -> str:
    """How much speech, repeats counted: distillation, and the warm starts of the adapter before it."""
    distilled = f"{_hours(sum(part['hours_heard'] for part in bill['training']))} of speech in distillation"
    warm = [part["warm_start"]["hours_at_most"] for part in bill["training"] if part["warm_start"] is not None]
    if not warm:
        return distilled
    before = "after a warm start" if len(warm) == 1 else f"after {len(warm)} warm starts"
    return f"{distilled}, {before} of at most {_hours(sum(warm))} (repeats counted)"


def _loading(bill: Bill, name: str) -> str:
    stage = bill["stage"]
    if stage.endswith("before_decay") or (bill["training"] and not bill["training"][-1]["steps"]):
        return "These are checkpoints, which training goes on from; the model is in `model/` of its stage."
    return (
        "```python\n# pip install salad-speech\nfrom salad import load\n\n"
        f'model = load("{name}")\nprint(model.answer("question.wav"))  # a recording of a question\n```'
    )


def _uses(bill: Bill) -> str:
    """Intended use, and the limits that its data and numbers set."""
    spoken = [source for source in _sources(bill) if source["kind"] != "text"]
    languages = sorted({source["language"] for source in spoken if source.get("language")}) or ["en"]
    known = hearing(bill["results"])
    limits = [
        f"It has heard {_heard(bill)}, in {', '.join(languages)}; other languages, accents, rooms, noise "
        "and spontaneous speech were not tried unless the tables below say so.",
        "It answers from what its text LLM knows, with that LLM's biases, errors and inventions; what it misheard it "
        "answers as surely as what it heard.",
        f"{known or 'Whether it hears was not measured.'} Speakers, feelings, music and sounds were not taught.",
        "Numbers below hold for their policy, corpus and voice alone; intervals are over items, not over seeds.",
    ]
    if guessed := guessing(bill["results"]):
        limits.insert(0, guessed)
    if not bill["training"] or (known and not known.startswith("It hears")):
        limits.insert(0, "**It can't be shown to hear at all**: use it as a text LLM, or to train on.")
    if any(source["kind"] == "synthetic speech" for source in spoken):
        limits.append("Part of what it heard is a synthetic voice, which it may hear better than people.")
    return (
        "## Intended use\n\nResearch on the gap between text and speech understanding: measuring it, and training "
        "further. Not for decisions about people, for transcription of record, or for safety; check the licences below "
        "before any other use.\n\n## Limits\n\n" + _list(limits)
    )


def _licences(bill: Bill) -> Iterator[str]:
    """The terms that must not be overlooked, then every licence."""
    for term, meaning in TERMS.items():
        bound = [entry for entry in bill["licences"] if term in entry["terms"]]
        for entry in bound:
            said = f" ({entry['licence']})" if entry["licence"] else ""
            yield f"> **{term.capitalize()}.** The licence of {', '.join(entry['of'])}{said} {meaning}.\n>"
    yield ""
    yield table(
        ("licence", "of"), ((entry["licence"] or "not stated", ", ".join(entry["of"])) for entry in bill["licences"])
    )
    yield "\nWhich of these bind a model that was trained on the data is for you to find out; this is no legal advice."


def _stage(part: Bill, of_model: str) -> str:
    speech = [source for source in part["sources"] if source["kind"] != "text"]
    texts = [source for source in part["sources"] if source["kind"] == "text"]
    ends = "" if part["steps"] == part["of_steps"] else f" of {part['of_steps']}"
    taken = f", taken over from {part['taken_over_from']}" if "taken_over_from" in part else ""
    lines = [
        f"## Data of {part['stage'].replace('_', ' ')}{taken}",
        f"{part['steps']}{ends} steps, seed {part['seed']}: {part['num_sequences']:,} sequences; the student heard "
        f"{part['num_speech_positions']:,} positions ({_hours(part['hours_heard'])}), read "
        f"{part['num_text_positions']:,}, and carried loss at {part['num_scored_positions']:,}.",
    ]
    if part["warm_start"] is not None:
        warm = part["warm_start"]
        lines.append(
            f"Before that, the adapter alone had a warm start ({warm['kind']}, {warm['steps']} steps, at most "
            f"{_hours(warm['hours_at_most'])}) on the same speech."
        )
    if part["stage"] == "stage_one" and 0 < part["steps"] < part["of_steps"] and of_model != "stage_one":
        lines.append(
            "Stage II goes on from Stage I as it was before its learning rate decayed: the last "
            f"{part['of_steps'] - part['steps']} steps, those of the decay, are in the model of Stage I alone."
        )
    if part.get("on_policy"):
        own = part["on_policy"]
        lines.append(
            f"In {own['rollouts']:,} of the sequences the student went on from what it heard in its own words, "
            f"{own['tokens']:,} tokens in all, and the text LLM scored them."
        )
    if speech:
        lines.append(table(SPEECH_HEAD, map(_speech_row, speech)))
    if texts:
        lines.append(table(TEXT_HEAD, map(_text_row, texts)))
    lines += [_selected(source) for source in speech if "selection" in source]
    came = [f"{source['name']} from {source['source']}" for source in speech if source.get("source")]
    lines += [f"Where it is from: {'; '.join(came)}."] if came else []
    return "\n\n".join(lines)


def _speech_row(source: Bill) -> tuple[str, ...]:
    return (
        source["name"] + (f" ({_speakers(source)})" if "voice" in source or "voices" in source else ""),
        f"{source['num_items']:,}",
        _hours(source["hours"]),
        _hours(source["hours_heard"]),
        f"{source['num_sequences']:,}",
        f"{source['epochs']:.2f}",
        f"{source['num_text_positions']:,}",
        "; ".join(_origin(origin, _hours(origin["hours"]), len(source["origins"])) for origin in source["origins"]),
        _short(source.get("cuts_sha256")),
    )


def _text_row(source: Bill) -> tuple[str, ...]:
    return (
        source["name"],
        f"{source['num_items']:,}",
        f"{source['num_sequences']:,}",
        f"{source['epochs']:.2f}",
        f"{source['num_text_positions']:,}",
        "; ".join(_origin(o, f"{o['num_items']:,}", len(source["origins"])) for o in source["origins"]) or "not stated",
        _short(source.get("sha256")),
    )


def _origin(origin: Bill, size: str, of: int) -> str:
    return (origin["licence"] or "not stated") + (f" ({size})" if of > 1 else "")


def _selected(source: Bill) -> str:
    chosen = source["selection"]
    how = f"by misalignment to the power {chosen['gamma']:g}" if chosen["gamma"] else "uniformly"
    return (
        f"The texts of the synthetic speech were drawn {how}, to a budget of {_amount(chosen['budget'])}, and "
        f"spoken by {_speakers(source)}."
    )


def _amount(budget: Bill) -> str:
    amount = budget["amount"]
    return _hours(amount / 3600) if budget["unit"] == "seconds" else f"{amount:,.0f} tokens"


def _speakers(source: Bill) -> str:
    """The voice, or of a pool each voice with its share of the speech."""
    if "voice" in source:
        return str(source["voice"])
    return ", ".join(f"{voice['name']} {voice['share']:.0%}" for voice in source["voices"] if voice["num_texts"])


def _model(model: Bill) -> tuple[str, ...]:
    hashes = model.get("sha256") or {"": model.get("fingerprint")}
    told = ", ".join(f"{name} {_short(value)}".strip() for name, value in hashes.items())
    return (model["role"], model["name"], model["licence"] or "not stated", told)


def _made(bill: Bill) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in bill["versions"].items())
    weights = f"\n\nSHA-256 of `{WEIGHTS_NAME}`: `{bill['weights_sha256']}`" if "weights_sha256" in bill else ""
    if "weights_dtype" in bill:
        weights += (
            f". They were rounded to {bill['weights_dtype']}, and are computed with in the model's own precision."
        )
    recipe = yaml.safe_dump(bill["recipe"], sort_keys=False, allow_unicode=True)
    return (
        f"## How it was made\n\nSeed {bill['seed']}; {versions}.{weights}\n\n"
        f"<details><summary>The recipe</summary>\n\n```yaml\n{recipe}```\n\n</details>"
    )


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _hours(hours: float) -> str:
    """Hours with as many digits as they are worth: 141,612 h, 4.18 h; below a tenth, minutes: 5.2 min."""
    if hours < 0.1:
        return f"{60 * hours:.3g} min"
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.3g} h"


def _short(digest: str | None) -> str:
    return f"`{digest[:12]}`" if digest else ""
