"""`salad probe`: texts of every cluster, spoken and heard, and what that says of where the model is deaf.

OUT/probes.jsonl    the texts: id, text, cluster, and what the corpus says of them
OUT/spoken/         their speech, a prepared folder (with --texts)
OUT/measured/       what each window of probes gave, so that a probe that was stopped goes on
OUT/probe.jsonl, items.parquet, info.json    see salad.select.probe_files
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from salad.card.bill import versions
from salad.errors import DataError
from salad.files import read_jsonl, write_jsonl
from salad.fingerprint import content_hash
from salad.measure.divergence_by_item import ItemScores
from salad.model.encoder import load_encoder
from salad.model.saved import model_folder
from salad.recipe import AugmentSettings, QualitySettings, Recipe, VoiceSettings
from salad.run import Progress
from salad.select.clusters import Clusters
from salad.select.probe import ClusterProbe, ProbeItem, draw_probes, probe_clusters
from salad.select.probe_files import labels_sha256, write_probes
from salad.select.probe_reading import Reading, kinds, read_off, warnings_of_making
from salad.select.probe_windows import Hearing, hear_probes
from salad.speech.prepared import Rejected, read_info, stream_cuts, text_of
from salad.spoken import speak_folder
from salad.student import recipe_of
from salad.synthesize.quality_hearing import hear
from salad.synthesize.quality_words import character_error_rate
from salad.synthesize.split import split
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text
from salad.workers import FanOut, answer_all

NOTHING_REFUSED = QualitySettings(**dict.fromkeys(QualitySettings.model_fields))
"""A bad voice must show in its clusters' error rates, so no utterance is refused for it here."""


@dataclass(frozen=True)
class Probing:
    """How a probe is made.

    Attributes:
        model: a model's folder, or a run's.
        clusters: a folder made by `salad cluster`.
        out: the folder to write.
        scores: those to give for each cluster besides M(c); `jsd` and `self_misalignment` are measured for it.
        max_cer: mean character error rate above which a cluster is left out.
        seed: of the texts drawn, the sequences' spans, the splits into halves and the intervals.
        threads: CPU threads of each process.
        processes: worker processes.
        fan_out: who works.
        progress: told (done, total, what is done).
    """

    model: Path
    clusters: Path
    out: Path
    scores: tuple[str, ...] = ()
    max_cer: float = 0.3
    seed: int = 0
    threads: int = 2
    processes: int = 1
    fan_out: FanOut = answer_all
    progress: Progress = lambda *_: None

    def tell(self, what: str) -> Callable[[int, int], None]:
        """The progress of a part."""
        return lambda done, total: self.progress(done, total, what)


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found: every cluster's line of probe.jsonl, and info.json."""

    probes: list[ClusterProbe]
    rows: list[dict[str, Any]]
    reading: Reading
    info: dict[str, Any]


def probe_texts(
    probing: Probing,
    texts: Path,
    per_cluster: int,
    voices: str | Sequence[VoiceSettings] | None = None,
) -> ProbeReport:
    """Draw texts of every cluster, have them spoken, and probe; one that was stopped goes on where it was.

    Args:
        probing: with what, and where to.
        texts: the corpus that was clustered.
        per_cluster: probe texts of each cluster; a larger probe keeps the texts, and the speech, of a smaller one.
        voices: who speaks; None: the voice of the model's recipe. The speech is not augmented.

    Raises:
        DataError: the clusters are not those of this corpus, or nothing could be spoken.
        AssetError: a voice can't be had.
    """
    clusters = Clusters.read(probing.clusters, texts)
    corpus = TextCorpus(texts)
    rows = draw_probes(clusters.labels_N, per_cluster, probing.seed, clusters.num_clusters)
    drawn = {beginning(corpus[int(row)]): cluster for cluster, own in enumerate(rows) for row in own}
    write_jsonl(probing.out / "probes.jsonl", ({**asdict(text), "cluster": cluster} for text, cluster in drawn.items()))
    recipe = recipe_of(model_folder(probing.model))
    spoken = probing.out / "spoken" / "probe"
    speak_folder(
        list(drawn),
        spoken,
        voices=recipe.voices if voices is None else voices,
        augment=AugmentSettings(),
        quality=NOTHING_REFUSED,
        asr=recipe.asr,
        aligner=recipe.aligner,
        encoder=load_encoder(recipe.model.encoder, probing.threads),
        threads=probing.threads * probing.processes,
        seed=probing.seed,
        fan_out=probing.fan_out,
        progress=probing.progress,
    )
    short = [cluster for cluster, own in enumerate(rows) if len(own) < per_cluster]
    cluster_of = {text.id: cluster for text, cluster in drawn.items()}
    made = {"texts": str(texts), "per_cluster": per_cluster, "smaller_clusters": short}
    return _measure(probing, clusters, spoken, cluster_of, recipe, made)


def beginning(text: Text) -> Text:
    """A text that can be said in one breath, or its first sentences, which can."""
    return replace(text, text=split(text.text)[0])


def probe_speech(probing: Probing, speech: Path) -> ProbeReport:
    """Probe with a prepared, aligned and encoded folder of spoken texts; ids say of which cluster each is.

    Raises:
        DataError: a spoken text is in no cluster.
        MissingFileError: the folder was not prepared, or not encoded by the model's encoder.
        AlignmentError: none of it was aligned.
    """
    clusters = Clusters.read(probing.clusters)
    texts = {cut.id: text_of(cut) for cut in stream_cuts(speech)}
    unspoken = [str(row["id"]) for row in _rows_of(speech, "rejected.jsonl") + _rows_of(speech, "refused.jsonl")]
    known = clusters.cluster_of
    unknown = [name for name in (*texts, *unspoken) if name not in known]
    if unknown:
        raise DataError(
            f"{speech}: {len(unknown)} of {len(texts) + len(unspoken)} texts are in no cluster of {probing.clusters} "
            f"(e.g. {unknown[0]!r}); it was spoken from another corpus, so probe with --texts."
        )
    cluster_of = {name: known[name] for name in (*texts, *unspoken)}
    rows = [{"id": name, "text": text, "cluster": cluster_of[name]} for name, text in texts.items()]
    write_jsonl(probing.out / "probes.jsonl", rows)
    return _measure(probing, clusters, speech, cluster_of, recipe_of(model_folder(probing.model)), {})


def _measure(
    probing: Probing,
    clusters: Clusters,
    speech: Path,
    cluster_of: Mapping[str, int],
    recipe: Recipe,
    made: Mapping[str, Any],
) -> ProbeReport:
    """Hear the probes, and write what was found."""
    hearing = Hearing(
        model_folder(probing.model).resolve(),  # a worker may stand elsewhere
        speech.resolve(),
        recipe.sequence,
        probing.seed,
        recipe.measure.batch_positions,
        probing.threads,
        jsd="jsd" in probing.scores,
        self_misalignment="self_misalignment" in probing.scores,
    )
    hearing.corpus()  # first of all, because it says what the speech lacks
    heard_by_asr = hear(
        stream_cuts(speech),
        recipe.asr,
        speech / ".heard",
        threads=probing.threads * probing.processes,
        processes=probing.processes,
        fan_out=probing.fan_out,
        progress=lambda done: probing.progress(done, len(cluster_of), "recognizing probes"),
    )
    kept = probing.out / "measured"
    heard = hear_probes(hearing, kept, probing.processes, probing.fan_out, probing.tell("hearing probes"))
    items = _items(heard.scores, speech, cluster_of, heard_by_asr)
    lost = _not_measured(cluster_of, items, speech, heard.rejected)
    probes = probe_clusters(items, clusters.num_clusters, probing.max_cer)
    reading = read_off(probes, items, heard.check, probing.seed, probing.scores)
    warnings = [*warnings_of_making(probes, lost.values(), len(cluster_of), made), *reading.warnings]
    info = {
        "format": "salad probe",
        "version": 1,
        "model": {"path": str(hearing.model), "sha256": content_hash(hearing.model), "llm": recipe.model.llm},
        "clusters": {"path": str(probing.clusters), "sha256": labels_sha256(probing.clusters)},
        "speech": {"path": str(speech), **_about(read_info(speech))},
        **made,
        "sequence": recipe.sequence.model_dump(mode="json"),
        "seed": probing.seed,
        "asr": recipe.asr,
        "max_cer": probing.max_cer,
        "num_clusters": len(probes),
        "num_probes": len(items),
        "num_tokens": sum(item.scores.count for item in items),
        "excluded": [{"cluster": probe.cluster, "reason": probe.excluded} for probe in probes if probe.excluded],
        "not_measured": kinds(lost.values()),
        **reading.as_json(),
        "warnings": warnings,
        "versions": versions(),
    }
    known = _known(clusters, probes, reading, lost, cluster_of)
    write_probes(probing.out, probes, items, info, known)
    rows = [probe.as_json() | row for probe, row in zip(probes, known, strict=True)]
    return ProbeReport(probes, rows, reading, info)


def _items(
    scores: Iterable[ItemScores], speech: Path, cluster_of: Mapping[str, int], heard: Mapping[str, Mapping[str, Any]]
) -> list[ProbeItem]:
    """The measured texts with their speech."""
    cuts = {cut.id: cut for cut in stream_cuts(speech)}
    items = []
    for row in scores:
        cut = cuts[row.item]
        text, hypothesis = text_of(cut), heard[row.item].get("hypothesis")
        cer = None if hypothesis is None else character_error_rate(text, hypothesis)
        audio = None if cut.recording is None else str(cut.recording.sources[0].source)
        items.append(ProbeItem(row, cluster_of[row.item], cer, len(text.split()), cut.duration, audio))
    return items


def _not_measured(
    cluster_of: Mapping[str, int], items: Iterable[ProbeItem], speech: Path, rejected: Iterable[Rejected]
) -> dict[str, Rejected]:
    """Every probe text that was not measured, and why."""
    reasons = {
        row["id"]: Rejected(row["id"], row["reason"], row["place"]) for row in _rows_of(speech, "rejected.jsonl")
    }
    for row in _rows_of(speech, "refused.jsonl"):
        reasons[row["id"]] = Rejected(row["id"], f"refused: {'; '.join(row['reasons'])}", str(speech))
    reasons |= {row.id: row for row in rejected}
    measured = {item.scores.item for item in items}
    unknown = "no step said why"
    return {
        name: reasons.get(name, Rejected(name, unknown, str(speech))) for name in cluster_of if name not in measured
    }


def _known(
    clusters: Clusters,
    probes: Sequence[ClusterProbe],
    reading: Reading,
    lost: Mapping[str, Rejected],
    cluster_of: Mapping[str, int],
) -> list[dict[str, Any]]:
    """What else each cluster's line says."""
    of_cluster: list[list[dict[str, str]]] = [[] for _ in probes]
    for name, row in lost.items():
        of_cluster[cluster_of[name]].append({"id": name, "reason": row.reason})
    return [
        {
            "name": row["name"],
            "share": float(share),
            "x": row.get("x"),
            "y": row.get("y"),
            "scores": {name: values[number] for name, values in reading.scores.items()},
            "not_measured": of_cluster[number],
        }
        for number, (row, share) in enumerate(zip(clusters.rows, clusters.shares, strict=True))
    ]


def _about(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a prepared folder says of itself that M depends on."""
    return {key: info[key] for key in ("corpus", "voice", "voice_fingerprint", "voices", "augment") if key in info}


def _rows_of(speech: Path, name: str) -> list[dict[str, Any]]:
    return read_jsonl(speech / name) if (speech / name).is_file() else []
