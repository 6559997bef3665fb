"""A measurement that goes on with more items, by domain, with F and M in its table; what the verb is given."""

import json
import socket
from dataclasses import replace

import pytest

import tiny
from salad.cli.measured_lines import lines_of, open_lines
from salad.cli.measured_tasks import domains_of, item_files, speak_here
from salad.errors import AssetError, DataError, MissingFileError, RecipeError
from salad.measure.arms import Measuring, Writer
from salad.measure.choice_scorers import EngineScorer
from salad.measure.open_result import OpenArm, OpenResult
from salad.measure.score_task import ScoreSettings
from salad.measure.statistics import Estimate
from salad.measure.tasks.item import Item
from salad.measure.transcripts import Transcripts
from salad.measuring import base_of, load_models, measure_task, summarize
from test_measuring import Clerk, Typist
from test_scoring_speech import items_of, model, scorer, spoken  # noqa: F401  (model is a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")
NATS = Estimate(0.5, 0.4, 0.6, 7)


def in_categories():
    return [replace(item, category=("law", "physics", "art")[n % 3]) for n, item in enumerate(items_of("arc_easy"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return spoken(tmp_path_factory.mktemp("more") / "spoken", "arc_easy", in_categories())


@pytest.fixture
def measuring(model, tmp_path):  # noqa: F811
    base = EngineScorer(tiny.llm(seed=3), model[1].tokenizer, "base", "base", True)
    settings = ScoreSettings(shots=1, num_bootstrap=100)
    return Measuring(scorer(model), base, Transcripts(Typist(), tmp_path / "cache"), tmp_path / "out", settings)


def test_more_items_go_on_where_fewer_were(measuring, folder, tmp_path):
    """Three of seven items are spoken and measured, then all; the same as all at once, and fewer again."""
    every = list(folder.items)
    rows = tuple(row for row in folder.renditions if row.item in {item.id for item in every[:3]})
    few = replace(folder, items=folder.items[:3], renditions=rows)
    first = measure_task(replace(measuring, limit=3), few, every)
    assert first.gap.whole.gap.n == 3
    grown = measure_task(measuring, folder, every)
    once = measure_task(replace(measuring, out=tmp_path / "once"), folder)
    assert grown.arms == once.arms
    assert grown.nats == once.nats
    again = measure_task(replace(measuring, limit=3), folder, every)
    assert alike(again.as_json(), first.as_json())


def alike(one, other):
    """The same data, numbers up to rounding: what is read in another batch has other last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)


def test_f_and_m_stand_beside_accuracy(measuring, folder):
    domains = {"law": "people", "art": "people", "physics": "nature"}
    result = measure_task(replace(measuring, domains=domains), folder)
    nats = result.nats
    assert (nats.forgetting.n, nats.misalignment.n, nats.why_not) == (7, 7, {})
    assert nats.base_to_speech.value > 0
    assert set(nats.by_group) == set(result.gap.by_group) == {"category", "domain"}
    assert {name: split.gap.n for name, split in result.gap.by_group["domain"].items()} == {"nature": 2, "people": 5}
    assert nats.by_group["domain"]["people"]["misalignment"].n == 5
    by_voice = [row.misalignment.value for row in result.conditions]
    assert nats.misalignment.value == pytest.approx(sum(by_voice) / 2)  # the same tokens in each voice
    measured = summarize({"arc_easy": result}, measuring.settings)
    corpus = {"corpus": "librispeech", "policy": "speech_prefix", "misalignment_nats": NATS.as_json()}
    lines = list(lines_of(measured, {"asr": "typist", "base": "base"}, corpus))
    table = "\n".join(lines)
    assert max(map(len, table.splitlines())) < 160
    assert "M, nats per token" in table
    assert "natural speech  librispeech, speech_prefix" in table
    assert "0.500 [0.400, 0.600]" in table
    assert "domain people" in table
    json.dumps(result.as_json())


def test_a_model_without_distributions_says_so(measuring, tmp_path):
    many = spoken(tmp_path / "many", "arc_easy", items_of("arc_easy", 4))
    own = replace(measuring, model=Writer(Clerk({}, False)), base=Writer(Clerk({}, False)), out=tmp_path / "clerk")
    result = measure_task(own, many)
    assert result.nats.misalignment is None
    assert "gives no log-probabilities" in result.nats.why_not["misalignment"]
    assert result.as_json()["nats_per_token"]["forgetting"] is None
    table = "\n".join(lines_of(summarize({"arc_easy": result}, own.settings), {"asr": "a", "base": "b"}, None))
    assert "no F and M in nats: clerk False gives no log-probabilities." in table


def test_open_answers_are_a_table():
    arm = OpenArm("speech", "sd-qa:usa", "clean", 6, NATS, NATS, NATS, None, NATS, 2, {"q7": "too long"})
    lines = list(open_lines(OpenResult("sd_qa", [arm], True, "6 of 6 answers are other ones.", "minilm-l6")))
    assert "50.0% [40.0%, 60.0%]" in lines[2]
    assert lines[2].split()[-1] == "2"
    assert "1 questions without an answer" in "\n".join(lines)


@pytest.mark.parametrize("text", ["[1, 2]", "{}", '{"law": 3}'])
def test_a_file_of_domains_that_is_none(tmp_path, text):
    file = tmp_path / "domains.json"
    file.write_text(text)
    with pytest.raises(DataError, match="holds no categories"):
        domains_of(file)
    file.write_text('{"how": "by hand", "subject_to_domain": {"law": "people"}}')
    assert domains_of(file) == {"law": "people"}
    assert domains_of(None) is None


def test_a_spoken_folder_grows_with_the_limit(tmp_path):
    items = tmp_path / "items.jsonl"
    rows = [Item(str(n), f"what is {n} and {n}?", ("one", "two"), 0).as_json() for n in range(4)]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def spoken_of(limit):
        (found,) = speak_here("arc_easy", {"arc_easy": items}, ["flite:slt"], tmp_path / "s", limit, 1).values()
        return found

    few, every = spoken_of(2)
    assert (len(few.items), len(every)) == (2, 4)
    bytes_of_two = few.speech_sha256
    assert len(spoken_of(3)[0].items) == 3
    assert len(spoken_of(2)[0].items) == 3  # what is there stays
    assert spoken_of(2)[0].renditions[:2] == few.renditions
    assert spoken_of(3)[0].speech_sha256 != bytes_of_two
    items.write_text(items.read_text().replace("what is 0", "which is 0"))
    with pytest.raises(DataError, match="not the 3 given"):
        spoken_of(3)


def test_a_cascade_names_the_llm_that_reads_in_it():
    assert base_of("cascade:whisper-tiny.en+org/llm") == "org/llm"


def test_items_are_named_by_task(tmp_path):
    items = tmp_path / "a.jsonl"
    with pytest.raises(MissingFileError, match=r"a\.jsonl does not exist"):
        item_files([str(items)], "copa")
    items.touch()
    assert item_files([str(items)], "copa") == {"copa": items}
    with pytest.raises(RecipeError, match="TASK=FILE"):
        item_files([str(items)], "copa,piqa")


def test_a_server_that_is_not_there_and_a_folder_that_is_not(tmp_path):
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(AssetError, match="nobody answers there"):
            load_models(
                f"endpoint:http://127.0.0.1:{taken.getsockname()[1]}/v1#x", str(tiny.save_llm(tmp_path / "llm"))
            )
    with pytest.raises(RecipeError, match="runs/none does not exist; check the path"):
        base_of("runs/none")
