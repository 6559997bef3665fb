"""What probes found, cluster by cluster, as the report draws it: before, after, and a text that can be listened to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salad.files import read_jsonl
from salad.select.probe import ProbeItem
from salad.select.probe_files import PROBE_NAME, read_items

FIELDS = ("cluster", "misalignment_nats", "standard_error_nats", "teacher_entropy_nats", "mean_cer", "num_probes")
KNOWN = ("name", "share", "x", "y")  # of the cluster itself


def probed_clusters(
    before: Path, after: Mapping[str, Path], texts: Mapping[str, str], root: Path
) -> list[dict[str, Any]]:
    """The clusters of a probe's folder as rows for the report (report/results.py, `ProbedCluster`).

    Args:
        before: the probe's folder.
        after: folders of later probes of the same clusters, by the name they are shown under.
        texts: what the probes say, by id; those not there are shown without it.
        root: what the paths of the speech are written relative to.

    Raises:
        MissingFileError: a folder holds no probe.
    """
    later = {name: {row["cluster"]: row for row in read_jsonl(folder / PROBE_NAME)} for name, folder in after.items()}
    worst = _most_misheard(read_items(before))
    rows = []
    for row in read_jsonl(before / PROBE_NAME):
        number = row["cluster"]
        found = {
            name: {key: probe[number][key] for key in FIELDS[1:3]} for name, probe in later.items() if number in probe
        }
        sample = _sample(worst[number], texts, root) if number in worst else None
        rows.append(
            {
                **{key: row[key] for key in FIELDS},
                **{key: row[key] for key in KNOWN if key in row},
                "excluded": row["excluded"],
                "after": found,
                "samples": [sample] if sample else [],
            }
        )
    return rows


def _most_misheard(items: list[ProbeItem]) -> dict[int, ProbeItem]:
    """Of each cluster the text with the highest misalignment."""
    found: dict[int, ProbeItem] = {}
    for item in items:
        if item.cluster not in found or _nats(item) > _nats(found[item.cluster]):
            found[item.cluster] = item
    return found


def _nats(item: ProbeItem) -> float:
    return item.scores.kl_nats / item.scores.count


def _sample(item: ProbeItem, texts: Mapping[str, str], root: Path) -> dict[str, Any] | None:
    if item.scores.item not in texts:
        return None
    audio = None if item.audio is None else os.path.relpath(item.audio, root)
    return {"text": texts[item.scores.item], "audio": audio, "misalignment_nats": _nats(item), "cer": item.cer}
