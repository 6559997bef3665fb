"""What a synthesis came to: how much each voice has spoken, how fast, and what was not spoken and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from salad.speech.prepared import Rejected
from salad.tally import Kinds


@dataclass
class SynthesisReport:
    """What `synthesize` made of its texts.

    Attributes:
        num_texts: how many there were.
        made_s: seconds of speech that this call has made; the rest was there.
        seconds: how long that took.
        rejected: the texts that have no speech, each with its reason, in order.
        num_by_voice: texts that each voice of the pool has spoken, by the name it was asked by.
        speech_s_by_voice: their seconds.
    """

    num_texts: int
    made_s: float
    seconds: float
    rejected: list[Rejected] = field(default_factory=list)
    num_by_voice: dict[str, int] = field(default_factory=dict)
    speech_s_by_voice: dict[str, float] = field(default_factory=dict)

    @property
    def num_spoken(self) -> int:
        """Texts that have speech."""
        return sum(self.num_by_voice.values())

    @property
    def speech_s(self) -> float:
        """Seconds of speech in the folder."""
        return sum(self.speech_s_by_voice.values())

    @property
    def rate(self) -> float | None:
        """Seconds of speech made a second; None when all was there."""
        return self.made_s / self.seconds if self.made_s else None

    def add(self, voice: str, seconds: float) -> None:
        """Count a text that a voice has spoken in so many seconds."""
        self.num_by_voice[voice] = self.num_by_voice.get(voice, 0) + 1
        self.speech_s_by_voice[voice] = self.speech_s_by_voice.get(voice, 0.0) + seconds

    def share_of(self, voice: str) -> dict[str, Any]:
        """How much one voice has spoken: texts, seconds, and its share of all seconds."""
        seconds = self.speech_s_by_voice.get(voice, 0.0)
        share = seconds / self.speech_s if self.speech_s else 0.0
        return {"num_texts": self.num_by_voice.get(voice, 0), "seconds": round(seconds, 3), "share": round(share, 4)}

    def reasons(self) -> list[dict[str, Any]]:
        """{"reason", "count", "example"} of the rejected, the most frequent first."""
        kinds = Kinds()
        for row in self.rejected:
            kinds.add(row.reason, row.id, row.place)
        return kinds.rows()

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            "num_texts": self.num_texts,
            "num_spoken": self.num_spoken,
            "num_rejected": len(self.rejected),
            "speech_s": round(self.speech_s, 3),
            "made_s": round(self.made_s, 3),
            "seconds": round(self.seconds, 3),
            "seconds_of_speech_per_second": None if self.rate is None else round(self.rate, 3),
            "voices": {voice: self.share_of(voice) for voice in self.num_by_voice},
            "rejected": self.reasons(),
        }
