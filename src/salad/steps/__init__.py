"""The steps of `salad run`, in order: which folder holds what, and which room does the work.

human/N, aligned/N  natural speech, prepared folders, without and with word timings; human_split.json: what is held out
texts/            mix, pool, heldout .jsonl
clusters/         the pool's clusters (select/clusters.py); probes.jsonl: the texts that probe them
probe/MODEL/      what the probes found (select/probe_files.py)
spoken/NAME/      synthetic speech: heldout, probe, stage_two, stage_two_uniform; audio shared in spoken/audio
*/features/       the frozen encoder's frames of the human speech in aligned/ and of each folder of synthetic speech
stage_one/, stage_two/, stage_two_uniform/    models, checkpoints, curves
stage_three/      where the recipe has it, also rollouts/: what the student said (salad/rollouts.py)
measured/         per-item rows of every arm
results.json, report.html
"""

from __future__ import annotations

from salad.recipe import Recipe
from salad.run import Step
from salad.select.clusters import FILES as CLUSTERS_FILES
from salad.steps import inputs
from salad.steps.data import align, cluster_pool, embed_pool, encode_human, prepare, run_synthesize, speak
from salad.steps.measuring import measure_step, results_step
from salad.steps.stages import probe_step, run_select, run_stage_one, run_stage_three, stage_two_step

MODEL = ("model", "sequence")
SPEECH = ("voice", "augment", "quality", "asr", "aligner")
SELECTION = tuple(
    f"stage_two.{key}"
    for key in (
        "score",
        "gamma",
        "coverage_frac",
        "max_boost",
        "budget_frac",
        "budget_h",
        "budget_tokens",
        "contamination_words",
    )
)
_WORK: tuple[Step, ...] = (
    Step(
        "prepare",
        "human speech with transcripts, and broad texts split into mix, pool and held-out",
        ("data",),
        (),
        ("human", "texts"),
        12,
        prepare,
        inputs=inputs.corpora_and_texts,
    ),
    Step(
        "align",
        "when each word of the human speech is spoken (an aligner, held to the transcript)",
        ("aligner", "data", "sequence.min_words"),
        ("prepare",),
        ("aligned", "human_split.json"),
        50,
        align,
        inputs=inputs.aligner,
    ),
    Step(
        "encode",
        "the frozen encoder hears the human speech once",
        ("model.encoder",),
        ("align",),
        (),
        20,
        encode_human,
        inputs=inputs.ears,
    ),
    Step(
        "embed",
        "what each broad text is about, as a vector",
        ("embedder",),
        ("prepare",),
        ("clusters/embeddings",),
        20,
        embed_pool,
        inputs=inputs.embedder,
    ),
    Step(
        "cluster",
        "topics of the broad texts: balanced k-means; and the texts that probe each",
        ("stage_two.num_clusters", "stage_two.balance_tolerance", "stage_two.probe_texts"),
        ("embed",),
        tuple(f"clusters/{name}" for name in (*CLUSTERS_FILES, "info.json", "probes.jsonl")),
        6,
        cluster_pool,
    ),
    Step(
        "speak",
        "held-out and probe texts spoken by the voice, and heard by the frozen encoder",
        (*SPEECH, "model.encoder"),
        ("cluster",),
        ("spoken/heldout", "spoken/probe"),
        100,
        speak,
        inputs=inputs.voice_and_ears,
    ),
    Step(
        "stage_one",
        "Stage I: distillation from the text LLM on human speech, after a warm start of the adapter",
        (*MODEL, "stage_one"),
        ("encode",),
        ("stage_one",),
        100,
        run_stage_one,
        collective=True,
        inputs=inputs.llm_and_start,
    ),
    Step(
        "measure_one",
        "M, F, hearing and the task for the untrained and the Stage I model",
        (*MODEL, "measure", "asr"),
        ("stage_one", "speak"),
        ("measured/untrained.json", "measured/stage_one.json", "measured/text_llm.json"),
        110,
        measure_step("untrained", "stage_one"),
    ),
    Step(
        "probe",
        "Stage II: in which clusters does the Stage I model mishear?",
        ("sequence", "stage_two.max_cer", "stage_two.score", "measure.batch_positions"),
        ("stage_one", "speak"),
        ("probe/stage_one",),
        10,
        probe_step("stage_one"),
    ),
    Step(
        "select",
        "texts drawn by misalignment^gamma, and uniformly as the control",
        SELECTION,
        ("probe",),
        ("selected",),
        1,
        run_select,
        inputs=inputs.evaluation,
    ),
    Step(
        "synthesize",
        "the selected texts of both arms, spoken, aligned and encoded",
        SPEECH,
        ("select",),
        ("spoken/stage_two", "spoken/stage_two_uniform"),
        110,
        run_synthesize,
        inputs=inputs.voice,
    ),
    Step(
        "stage_two",
        "distillation goes on, on natural speech, selected speech and text",
        ("stage_two",),
        ("synthesize",),
        ("stage_two",),
        90,
        stage_two_step("stage_two"),
        collective=True,
    ),
    Step(
        "stage_two_uniform",
        "the control arm: same budget, same steps, uniform selection (gamma = 0)",
        ("stage_two",),
        ("synthesize",),
        ("stage_two_uniform",),
        90,
        stage_two_step("stage_two_uniform"),
        collective=True,
    ),
    Step(
        "probe_two",
        "the probes once more: where do the Stage II models mishear?",
        ("sequence", "stage_two.max_cer", "measure.batch_positions"),
        ("stage_two", "stage_two_uniform"),
        ("probe/stage_two", "probe/stage_two_uniform"),
        15,
        probe_step("stage_two", "stage_two_uniform"),
    ),
    Step(
        "measure_two",
        "M, F, hearing and the task for both Stage II models",
        (*MODEL, "measure"),
        ("stage_two", "stage_two_uniform"),
        ("measured/stage_two.json", "measured/stage_two_uniform.json"),
        90,
        measure_step("stage_two", "stage_two_uniform"),
    ),
)
STAGE_THREE: tuple[Step, ...] = (
    Step(
        "stage_three",
        "Stage III: the student goes on from speech in its own words, scored by the text LLM",
        ("stage_three",),
        ("stage_two",),
        ("stage_three",),
        120,
        run_stage_three,
        collective=True,
    ),
    Step(
        "measure_three",
        "M, F, hearing and the task for the Stage III model",
        (*MODEL, "measure"),
        ("stage_three",),
        ("measured/stage_three.json",),
        45,
        measure_step("stage_three"),
    ),
)
"""What a recipe with a Stage III has besides."""


def _with_report(work: tuple[Step, ...], measured: tuple[str, ...]) -> tuple[Step, ...]:
    report = Step(
        "report",
        "results.json and report.html",
        ("name", "measure"),
        measured,
        ("results.json", "report.html"),
        5,
        results_step(work),
    )
    return (*work, report)


_MEASURED = ("measure_one", "measure_two", "probe_two")
STEPS = _with_report(_WORK, _MEASURED)
"""The steps of the paper's method."""


def steps_of(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of a recipe, in order: Stage III is done where it has one, and measured before the report."""
    if recipe.stage_three is None:
        return STEPS
    return _with_report((*_WORK, *STAGE_THREE), (*_MEASURED, "measure_three"))
