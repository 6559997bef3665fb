"""From a name to a model under test.

    FOLDER or RUN                      what it is: ours, an audio-text model of a known family, or a text LLM
    salad:FOLDER                       a speech LLM of ours, or a run that has come to one
    hf:NAME                            an audio-text model of transformers (transformers_audio.py)
    text:NAME                          a text LLM
    cascade:ASR+LLM                    faster-whisper (an asset, or a CTranslate2 folder) or an ASR of transformers,
                                       before a text LLM or an endpoint:…
    endpoint:URL#MODEL                 an OpenAI-compatible server

A NAME is a path, an asset (`salad assets`) or org/name on the hub.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salad.assets import resolve
from salad.errors import AssetError, RecipeError
from salad.files import read_json
from salad.fingerprint import content_hash
from salad.measure.models.base import Listener

if TYPE_CHECKING:
    from salad.measure.models.asr import Recognizes

_FORMS = (
    "a folder or name, salad:FOLDER, hf:NAME (audio-text models of transformers), text:NAME, cascade:ASR+LLM, or "
    "endpoint:URL#MODEL"
)


def load_listener(spec: str, **options: Any) -> Listener:
    """The model that `spec` names, ready to be asked.

    Args:
        spec: one of the forms above.
        options: of its kind. `dtype` (float32, bfloat16, float16; auto: as saved) and `device` (auto, cpu, cuda …) for
            what runs here; `chat` puts prompts into the model's chat template; `mark` begins a text LLM's prompts with
            the document mark; `trust_remote_code` lets a family whose code is on the hub run it; `threads` and
            `spell_numbers` of an ASR of faster-whisper; `max_audio_s` and `timeout_s` of an endpoint.

    Raises:
        RecipeError: no such form, or an option that is not of this kind.
        AssetError, CheckpointError: it can't be found or loaded.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in _KINDS or not rest:
        if colon and kind.isalpha() and len(kind) > 1 and not Path(spec).exists():
            raise RecipeError(f"{spec!r} is no model under test; understood are {_FORMS}.")
        kind, rest = _kind_of(spec), spec
    load = _KINDS[kind]
    known = [name for name in inspect.signature(load).parameters if name != "name"]
    strange = sorted(name for name, value in options.items() if name not in known and value not in (None, False))
    if strange:
        raise RecipeError(
            f"{spec} is loaded without {', '.join(strange)}; {kind} takes {', '.join(known) or 'no options'}."
        )
    return load(rest, **{name: value for name, value in options.items() if name in known and value is not None})


def load_asr(name: str, threads: int = 2, spell_numbers: bool = False, device: str = "auto") -> Recognizes:
    """faster-whisper of a CTranslate2 folder or asset, or an ASR of transformers by folder or name.

    Raises:
        AssetError: there is none.
    """
    from salad.measure.models.asr import TransformersASR, WhisperASR
    from salad.model.saved import device_of

    folder = resolve(name)
    if (folder / "model.bin").is_file():
        return WhisperASR(folder, threads, spell_numbers)
    try:
        return TransformersASR(folder, name, _content(folder), device_of(device))
    except (ImportError, KeyError, OSError, ValueError) as error:
        raise AssetError(f"{name} can't be loaded as an ASR: {error}.") from error


def _kind_of(name: str) -> str:
    """What a folder holds, by its config.json.

    Raises:
        RecipeError: a kind of model that no one here knows.
    """
    from salad.measure.models.transformers_audio import FAMILIES

    path = _ours(resolve(name))
    if not (path / "config.json").is_file():
        if list(path.glob("*.gguf")):
            return "text"
        raise RecipeError(f"{path} holds no model (no config.json); understood are {_FORMS}.")
    config = read_json(path / "config.json")
    if config.get("model_type") == "salad_speech_lm":
        return "salad"
    if config.get("model_type") in FAMILIES:
        return "hf"
    if any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in config.get("architectures") or ()):
        return "text"
    raise RecipeError(
        f"{path} is a {config.get('model_type')!r}, which no one here can ask: neither a causal LM nor one of the "
        f"audio-text families {', '.join(sorted(FAMILIES))}; docs/models.md says how to add one."
    )


def _ours(path: Path) -> Path:
    """A model folder, or the last model of a run."""
    for candidate in (path, *(path / stage / "model" for stage in ("stage_three", "stage_two", "stage_one"))):
        if (candidate / "config.json").is_file():
            return candidate
    return path


def _salad(name: str, dtype: str = "auto", device: str = "auto", chat: bool = False) -> Listener:
    from salad.measure.models.salad_model import SaladModel
    from salad.model.llm import llm_folder
    from salad.model.processor import SpeechLMProcessor
    from salad.model.speech_lm import SpeechLM

    path = _ours(resolve(name))
    model = SpeechLM.from_pretrained(path, dtype=dtype, device_map=device)
    parts = [_content(path)]
    if model.config.train_llm != "full":
        parts.append(_content(llm_folder(model.config.llm)))
    return SaladModel(model, SpeechLMProcessor.from_pretrained(path), name, _print("salad", parts, dtype, chat), chat)


def _text(
    name: str,
    dtype: str = "auto",
    device: str = "auto",
    chat: bool = False,
    mark: bool = False,
    attention: str = "sdpa",
) -> Listener:
    from transformers import AutoModelForCausalLM

    from salad.measure.models.text_llm import TextLLM
    from salad.model.llm import llm_folder, load_tokenizer

    path = llm_folder(name)
    model = _loaded(AutoModelForCausalLM, path, name, dtype=_dtype(dtype), attn_implementation=attention)
    fingerprint = _print("text", [_content(path)], dtype, chat, mark)
    return TextLLM(_placed(model, device), load_tokenizer(name), name, fingerprint, mark, chat)


def _transformers(
    name: str, dtype: str = "auto", device: str = "auto", chat: bool = False, trust_remote_code: bool = False
) -> Listener:
    import transformers

    from salad.measure.models.transformers_audio import FAMILIES, Ultravox

    path = resolve(name)
    kind = read_json(path / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise RecipeError(f"{name} is a {kind!r}; audio-text families known here are {', '.join(sorted(FAMILIES))}.")
    family = FAMILIES[kind]
    how: dict[str, Any] = {"dtype": _dtype(dtype)}
    if issubclass(family, Ultravox):
        if not trust_remote_code:
            raise RecipeError(f"{name} runs code that comes with it; give trust_remote_code if you trust its authors.")
        how["trust_remote_code"] = True
    model = _loaded(getattr(transformers, family.model_class), path, name, **how)
    try:
        processor = family.load_processor(path)
    except (ImportError, OSError, ValueError) as error:
        raise AssetError(f"the processor of {name} can't be loaded: {error}.") from error
    fingerprint = _print(kind, [_content(path)], dtype, chat)
    return family(_placed(model, device), processor, name, fingerprint, chat)


def _cascade(
    name: str,
    dtype: str = "auto",
    device: str = "auto",
    chat: bool = False,
    mark: bool = False,
    threads: int = 2,
    spell_numbers: bool = False,
) -> Listener:
    from salad.measure.models.cascade import Cascade

    ears, plus, reader = name.partition("+")
    if not plus or not ears or not reader:
        raise RecipeError(f"cascade:{name} is incomplete; write cascade:ASR+LLM, e.g. cascade:whisper-tiny.en+LLM.")
    asr = load_asr(ears, threads, spell_numbers, device)
    if reader.startswith("endpoint:"):
        return Cascade(asr, load_listener(reader))
    options = {"dtype": dtype, "device": device, "chat": chat, "mark": mark}
    return Cascade(asr, load_listener(f"text:{reader.removeprefix('text:')}", **options))


def _endpoint(name: str, max_audio_s: float | None = None, timeout_s: float = 120.0) -> Listener:
    from salad.measure.models.endpoint import Endpoint

    return Endpoint(name, max_audio_s, timeout_s)


_KINDS: dict[str, Callable[..., Listener]] = {
    "salad": _salad,
    "hf": _transformers,
    "text": _text,
    "cascade": _cascade,
    "endpoint": _endpoint,
}


def _loaded(model_class: Any, path: Path, name: str, **how: Any) -> Any:
    """A model all of whose weights were there: transformers draws the missing ones at random with a mere warning."""
    try:
        model, found = model_class.from_pretrained(path, output_loading_info=True, **how)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise AssetError(f"{name} can't be loaded as {model_class.__name__}: {error}.") from error
    missing = sorted(found["missing_keys"])
    if missing and not how.get("trust_remote_code"):  # such code may load parts from elsewhere by itself
        raise AssetError(
            f"{name} lacks {len(missing)} of the weights of {type(model).__name__} (e.g. {missing[0]}), which would be "
            "random; its files are incomplete, or of another version of the class."
        )
    return model


def _dtype(name: str) -> Any:
    from salad.model.saved import dtype_of

    return dtype_of(name) or "auto"


def _placed(model: Any, device: str) -> Any:
    from salad.model.saved import device_of

    model.eval()
    return model.to(device_of(device))


def _content(path: Path) -> str:
    """What a model's folder holds: its commit in the hub's cache, else the hash of its files."""
    return path.name if path.parent.name == "snapshots" else content_hash(path)


def _print(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
