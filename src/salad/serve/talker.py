"""A model that is loaded once and talked to, from one place or many at a time.

talker = Talker.load(Path("runs/demo"))
heard = talker.hear([Turn("user", (read_clip(Path("question.wav")),))])
for text in talker.stream(heard, max_tokens=64):
    print(text, end="", flush=True)
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salad.distill.teacher import LoraOffTeacher, SeparateTeacher, Teacher, teacher_for
from salad.errors import TooLongError
from salad.files import read_json
from salad.measure.models.base import Speech
from salad.model.llm import document_mark
from salad.model.processor import SpeechLMProcessor
from salad.model.saved import model_folder
from salad.model.speech_lm import SpeechLM
from salad.serve.conversation import Prompt, Prompter, Turn
from salad.serve.divergence import TokenDivergence, answer_divergence
from salad.serve.drawing import Sampling
from salad.serve.engine import Engine
from salad.serve.rows import Event, Failed, Finished, Job, Piece, Rows
from salad.serve.text_stream import TextStream

if TYPE_CHECKING:
    from salad.measure.models.asr import Recognizes

HEARS, READS = "hears", "reads"
GREEDY = Sampling()


class Talker:
    """A speech LLM and, beside it, the text LLM it was made of.

    Args:
        model: a speech LLM, in eval mode where it is to run.
        processor: saved with it.
        name: what it is called.
        asr: the ASR whose transcripts the text LLM reads; loaded when it is first needed.
        continue_text: see `Prompter`.
        max_rows, max_waiting: see `Engine`.
    """

    def __init__(
        self,
        model: SpeechLM,
        processor: SpeechLMProcessor,
        name: str,
        asr: str = "whisper-tiny.en",
        continue_text: bool = False,
        max_rows: int = 16,
        max_waiting: int = 256,
    ) -> None:
        self.model = model
        self.processor = processor
        self.name = name
        self.prompter = Prompter(processor, continue_text)
        self._asr_name = asr
        self._listening = threading.Lock()
        self._end_ids = _end_ids(model, processor.tokenizer)
        self.engine = Engine({HEARS: self._rows(model), READS: self._rows(self._read)}, max_rows, max_waiting)

    @classmethod
    def load(cls, path: Path, asr: str | None = None, device: str = "auto", **options: Any) -> Talker:
        """From a model folder, or a run's last model; `asr` is the run's own unless told.

        Raises:
            CheckpointError: there is no model, or its files are damaged.
        """
        folder = model_folder(path)
        model = SpeechLM.from_pretrained(folder, device_map=device)
        processor = SpeechLMProcessor.from_pretrained(folder)
        return cls(model, processor, path.resolve().name, asr or _asr_of(folder), **options)

    def close(self) -> None:
        """Stop the engine; the model stays in memory as long as someone holds it."""
        self.engine.close()

    # --- prompts ----------------------------------------------------------------------------------------------------

    @property
    def max_positions(self) -> int | None:
        """What prompt and answer may have together; None where the LLM names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def hear(self, turns: Sequence[Turn]) -> Prompt:
        """The prompt of a conversation; speech goes through the frozen encoder here, one conversation at a time."""
        with self._listening:
            return self.prompter.heard(turns)

    def read(self, turns: Sequence[Turn]) -> Prompt:
        """The same conversation for the text LLM, with the ASR's transcripts."""
        return self.prompter.read(turns, self.transcript)

    def transcript(self, clip: Speech) -> str:
        """What the ASR hears in a clip."""
        with self._listening:
            return self._asr.transcribe(clip)

    # --- answers ----------------------------------------------------------------------------------------------------

    def start(
        self,
        prompt: Prompt,
        tell: Callable[[Event], None],
        max_tokens: int,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
        reader: str = HEARS,
    ) -> Job:
        """Have a prompt answered; `tell` gets the events, in the engine's thread, until the job is cancelled.

        Raises:
            TooLongError: prompt and answer don't fit the model.
            BusyError: too many are waiting.
        """
        limit = self.max_positions
        if limit is not None and len(prompt.ids) + max_tokens > limit:
            raise TooLongError(
                f"the prompt has {len(prompt.ids)} positions and {max_tokens} tokens may follow; {self.name} has "
                f"{limit} positions: ask for fewer tokens, or something shorter."
            )
        job = Job(prompt, sampling, max_tokens, TextStream(self.processor.tokenizer, stops), tell)
        self.engine.submit(reader, job)
        return job

    def events(self, prompt: Prompt, max_tokens: int, **how: Any) -> Iterator[Piece | Finished]:
        """The pieces of an answer as they come, then its end; leaving the loop early cancels it.

        Raises:
            As `start`; and what went wrong while it was written.
        """
        told: queue.SimpleQueue[Event] = queue.SimpleQueue()
        job = self.start(prompt, told.put, max_tokens, **how)
        try:
            while True:
                event = told.get()
                if isinstance(event, Failed):
                    raise event.error
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            job.cancelled.set()

    def stream(self, prompt: Prompt, max_tokens: int, **how: Any) -> Iterator[str]:
        """The text of an answer, piece by piece."""
        for event in self.events(prompt, max_tokens, **how):
            if isinstance(event, Piece):
                yield event.text

    def divergence(self, heard: Prompt, read: Prompt, answer: Sequence[int]) -> list[TokenDivergence]:
        """Where hearing and reading part, for each token of an answer."""

        def compute() -> list[TokenDivergence]:
            return answer_divergence(self.model, self._teacher, self.processor.tokenizer, heard, read, answer)

        return self.engine.call(compute)

    # --- the two readers --------------------------------------------------------------------------------------------

    def _rows(self, reader: Callable[..., Any]) -> Rows:
        mark = self.processor.speech_token_id
        return Rows(reader, self.model.device, len(self.processor.tokenizer), mark, self._end_ids)

    def _read(self, **inputs: Any) -> Any:
        """The text LLM's forward; called in the engine's thread alone, for LoRA is switched off meanwhile."""
        teacher = self._teacher
        if isinstance(teacher, LoraOffTeacher):
            with self.model.as_text_llm() as llm:
                return llm(**inputs)
        assert isinstance(teacher, SeparateTeacher)
        return teacher.llm(**inputs)

    @cached_property
    def _teacher(self) -> Teacher:
        return teacher_for(self.model)

    @cached_property
    def _asr(self) -> Recognizes:
        from salad.measure.models.load import load_asr

        return load_asr(self._asr_name)


def _end_ids(model: SpeechLM, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's end, what the model's own settings name, and the document mark."""
    named: Any = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = {tokenizer.eos_token_id, document_mark(tokenizer), *(named if isinstance(named, list) else [named])}
    return frozenset(int(end) for end in ends if end is not None)


def _asr_of(folder: Path) -> str:
    """The ASR of the recipe that made a model, whatever else older recipes had in them."""
    return str(read_json(folder / "salad.json").get("recipe", {}).get("asr", "whisper-tiny.en"))
