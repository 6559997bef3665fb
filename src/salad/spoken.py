"""Texts → speech that the model can hear: spoken, checked, timed word by word, encoded.

OUT/cuts.jsonl.gz    what was spoken, passed the check, and has word timings
OUT/rejected.jsonl   what could not be spoken or timed
OUT/refused.jsonl    what was spoken badly; with quality.parquet, see synthesize/quality.py
OUT/features/        what the frozen encoder hears of the rest
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salad.card.licence import licence_of_model
from salad.errors import DataError
from salad.files import read_jsonl, write_json
from salad.model.encode import encode_cuts
from salad.model.encoders.speech_encoder import SpeechEncoder
from salad.recipe import AugmentSettings, QualitySettings, VoiceSettings
from salad.run import Progress
from salad.speech.align import align_folder
from salad.speech.corpora.hub import NOT_STATED
from salad.speech.prepared import Rejected, read_info, reasons, stream_cuts
from salad.synthesize.pool import synthesize
from salad.synthesize.quality import QualityReport, check_speech
from salad.synthesize.split import split_texts
from salad.texts.text import Text
from salad.workers import FanOut, answer_all


def speak_folder(
    texts: Sequence[Text],
    out: Path,
    *,
    voices: str | Sequence[VoiceSettings],
    augment: AugmentSettings,
    quality: QualitySettings,
    asr: str | None,
    aligner: str,
    encoder: SpeechEncoder,
    threads: int,
    seed: int,
    audio_dir: Path | None = None,
    fan_out: FanOut = answer_all,
    progress: Progress = lambda *_: None,
    in_parts: bool = False,
) -> dict[str, Any]:
    """Speak texts into the prepared folder `out` and make it ready for the model; goes on where it was stopped.

    What is refused by the check is neither timed nor encoded.

    Args:
        texts: ids must be unique.
        out: the prepared folder.
        voices: one by its name, or a pool.
        augment: what is done to the sound.
        quality: which utterances are refused.
        asr: the recognizer of the check; None: the sound is checked alone.
        aligner: times the words where the voice does not, as `load_aligner` knows it.
        encoder: whose features to make.
        threads: CPU threads of all processes together.
        seed: of the draws of voices and sounds.
        audio_dir: where the audio lies, `out`/audio unless several folders share it; with it what the ASR heard of it.
        fan_out: who speaks and recognizes.
        progress: told (done, total, what is done).
        in_parts: a text that is too long for one utterance is spoken as several (synthesize/split.py).

    Returns:
        `seconds` and `num_cuts` of what is ready, `rejected` as results.json lists it ({"where", "reason", "count"} for
        synthesis, quality, alignment and encoding), and `quality`, as `QualityReport.as_json` describes it.

    Raises:
        DataError: an id stands twice, every utterance is refused, or the disk takes no more.
        AssetError: a voice, the ASR or the aligner can't be had.
        AlignmentError: no utterance can be timed.
    """
    name = out.name

    def tell(what: str) -> Any:
        return lambda done, total: progress(done, total, f"{what} {name}")

    said = list(split_texts(texts)) if in_parts else texts
    synthesize(said, voices, out, threads, tell("speaking"), audio_dir, seed=seed, augment=augment, fan_out=fan_out)
    unspoken = [Rejected(row["id"], row["reason"], row["place"]) for row in read_jsonl(out / "rejected.jsonl")]
    rejected = reasons(f"synthesis of {name}", unspoken)
    checked = check_speech(
        out,
        asr,
        quality,
        threads=threads,
        processes=threads,
        fan_out=fan_out,
        progress=tell("checking"),
        heard_dir=None if audio_dir is None else audio_dir.parent / "heard",
    )
    _stop_if_all_are_refused(checked, out)
    rejected += reasons(f"quality of {name}", checked.rejections())
    _, untimed = align_folder(out, aligner, threads, progress=tell("aligning"))
    rejected += reasons(f"alignment of {name}", untimed)
    note_licence(out, texts, voices)
    made = encode_cuts(out, encoder, tell("encoding"))
    rejected += reasons(f"encoding of {name}", made.rejected)
    durations = [cut.duration for cut in stream_cuts(out)]
    return {
        "seconds": sum(durations),
        "num_cuts": len(durations),
        "rejected": rejected,
        "quality": checked.as_json(),
    }


def note(folder: Path, known: dict[str, Any]) -> None:
    """Have the card know it, too: what info.json says of a prepared folder goes into the data bill."""
    write_json(folder / "info.json", {**read_info(folder), **known})


def note_licence(out: Path, texts: Sequence[Text], voices: str | Sequence[VoiceSettings]) -> None:
    """Have info.json say under which licences the texts and the voices stand."""
    names = [voices] if isinstance(voices, str) else [voice.name for voice in voices]
    of_texts = ", ".join(dict.fromkeys(text.licence for text in texts))
    of_voices = ", ".join(dict.fromkeys(licence_of_model(name) or NOT_STATED for name in names))
    note(out, {"licence": f"texts: {of_texts}; voice: {of_voices}"})


def _stop_if_all_are_refused(checked: QualityReport, out: Path) -> None:
    if checked.num_refused and checked.num_refused == checked.num_checked:
        worst = next(iter(checked.by_reason))
        raise DataError(
            f"{out}: all {checked.num_checked} utterances are refused, most for {worst!r}; listen to them with "
            f"'salad check {out} --html listen.html', and choose another voice or looser thresholds (recipe key "
            "quality)."
        )
