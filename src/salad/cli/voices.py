"""`salad voices`: what can speak here and now, and a way to hear it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salad.cli.options import JsonOption, app, print_json
from salad.errors import RecipeError

if TYPE_CHECKING:
    from salad.synthesize.voices.catalogue import Entry


@app.command()
def voices(
    say: Annotated[str | None, typer.Option("--say", metavar="TEXT", help="Speak this instead of listing.")] = None,
    voice: Annotated[str, typer.Option("--voice", metavar="NAME", help="Who speaks it.")] = "piper-joe",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to: a .wav or .flac.")] = None,
    speed: Annotated[float, typer.Option("--speed", help="1 is the voice's own, 2 twice as fast.")] = 1.0,
    semitones: Annotated[float, typer.Option("--pitch", help="Semitones higher, at the same speed.")] = 0.0,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda for a Kokoro voice.")] = "cpu",
    ready: Annotated[bool, typer.Option("--ready", help="Only those that can speak now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the voices: where from, licence, abilities, ready or not; --say "…" --voice NAME --out x.wav: hear one.

    A text is normalized as for synthesis (numbers, units, abbreviations become words). A speed or pitch that the voice
    can't do by itself is refused here; 'salad synthesize' stretches its sound instead.
    """
    if say is not None:
        if out is None or out.suffix.lower() not in (".wav", ".flac"):
            raise RecipeError("--say needs --out FILE.wav or FILE.flac to write to.")
        if out.is_dir():
            raise RecipeError(f"--out {out} is a folder; name a file in it, e.g. {out / 'said.wav'}.")
        return _say(say, voice, out, speed, semitones, device, as_json)
    if out is not None:
        raise RecipeError("--out is where --say speaks to; give --say TEXT with it.")
    from salad.synthesize.voices.catalogue import catalogue

    entries = sorted((entry for entry in catalogue() if entry.ready or not ready), key=lambda entry: not entry.ready)
    if as_json:
        return print_json([asdict(entry) for entry in entries])
    _print(entries)


def _say(text: str, name: str, out: Path, speed: float, semitones: float, device: str, as_json: bool) -> None:
    import time

    from salad.errors import AudioError
    from salad.synthesize.voices import load_voice
    from salad.synthesize.voices.wave import write_sound
    from salad.texts.normalize import spoken_form

    words = spoken_form(text)
    voice = load_voice(name, device=device)
    begin = time.perf_counter()
    audio, times = voice.speak(words, speed, semitones)
    took_s = time.perf_counter() - begin
    if not audio.any():
        raise AudioError(f"voice {voice.name} gives no sound for {words!r}; say something else.")
    write_sound(out, audio, voice.rate_hz)
    seconds = len(audio) / voice.rate_hz
    if as_json:
        told = {"out": str(out), "voice": voice.name, "text": words, "seconds": seconds, "took_s": took_s}
        return print_json(told | {"rate_hz": voice.rate_hz, "fingerprint": voice.fingerprint, "words": times})
    print(f"{out}: {seconds:.2f} s by {voice.name}, made in {took_s:.2f} s with its model's loading: {words}")


def _print(entries: list[Entry]) -> None:
    """A line for each voice, and below it what one that is not ready needs."""
    print(f"{'voice':<27} {'ready':<5} {'for':<5} {'kHz':>5}  {'by itself':<18} licence")
    for entry in entries:
        ready = {True: "yes", False: "no", None: "?"}[entry.ready]
        rate = f"{entry.rate_hz / 1000:g}" if entry.rate_hz else "any"
        able = [(entry.speed, "speed"), (entry.pitch, "pitch"), (entry.word_times, "words")]
        can = ", ".join(what for can, what in able if can) or "–"
        print(f"{entry.name:<27} {ready:<5} {entry.made_for:<5} {rate:>5}  {can:<18} {entry.licence}")
    lacking = list(dict.fromkeys(entry.needs for entry in entries if not entry.ready and entry.needs))
    more = " What is not ready needs:" if lacking else ""
    print(f"by itself: changes its speed or pitch, tells when each word is spoken.{more}")
    for needs in lacking:
        names = [entry.name for entry in entries if entry.needs == needs]
        print(f"  {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {needs}")
