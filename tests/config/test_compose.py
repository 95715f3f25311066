"""Every option, every experiment at both scales, and who wins over whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from qhk.cli.job import prepare
from qhk.config.catalogue import OVERLAYS, Catalogue, choice_of, config_root, read_catalogue
from qhk.config.compose import compose_config, overruled_choices
from qhk.config.sets import dataset_entries, keep_used_sets
from qhk.errors import UserError
from qhk.settings.identity import run_id
from qhk.tasks import find_form
from tests.conftest import repository_catalogue

Compose = Callable[..., dict[str, Any]]
CATALOGUE = repository_catalogue()
APART = (*OVERLAYS, "scorer")
"""Groups that train has not, or that go over the others."""

GROUPS = {group: options for group, options in CATALOGUE.options.items() if group not in APART}
EXPERIMENTS = CATALOGUE.options["experiment"]
COMPANIONS = {
    ("twin", "manifest"): ["twin.manifest=pairs.jsonl"],
    ("optimizer", "adamw"): ["model.dtype=float32"],
    ("model", "checkpoint"): ["model.path=weights"],
    ("model", "qwen2_5_vl_7b_continued"): ["model.path=weights"],
    ("model", "hugging_face"): ["model.path=weights"],
    ("framing", "crop"): [
        "framing.side=64",
        "model.min_pixels=4096",
    ],  # native, and what the tiny model takes
    ("framing", "fragments"): ["framing.side=32", "framing.pieces=2", "model.min_pixels=4096"],
    ("framing", "fragments_small"): ["framing.side=32", "framing.pieces=2", "model.min_pixels=4096"],
}
"""What an option leaves for the user to fill in, or cannot go with."""
CONTINUED = ("q_insight_comparison", "preresq_r1_vqa")
"""Experiments that begin with another's checkpoint, which the user names."""


def task_form(option: str) -> str:
    form = yaml.safe_load((config_root() / f"conf/task/{option}.yaml").read_text())["form"]
    assert isinstance(form, str)
    return form


@pytest.mark.parametrize("turn", range(max(map(len, GROUPS.values()))))
def test_every_option_composes_and_parses(turn: int, catalogue: Catalogue) -> None:
    """Each turn takes the next option of every group, so that all are met, in changing company."""
    chosen = {group: options[turn % len(options)] for group, options in GROUPS.items()}
    form = task_form(chosen["task"])
    if chosen["mixture"] == form:
        chosen["mixture"] = "none"  # a task is not mixed with itself
    if not find_form(
        form
    ).has_scores:  # rewards that compare scores are refused there, and weights by their spread
        chosen |= {"reward": f"q_insight_{form}", "stages": "none", "uncertainty": "none"}
    if chosen["stages"] == "exploration_then_stability":
        del chosen["reward"]  # each of its stages has its own
    if chosen["adapter"] == "qlora":
        chosen |= {
            "model": "qwen2_5_vl_7b",
            "cold_start": "none",
            "rollout": "default",
            "distributed": "ddp",
        }  # published weights, no step on all of them, none divided or handed to another engine
    in_words = (
        not find_form(form).has_scores or chosen["mixture"] != "none" or "comparisons" in chosen["stages"]
    )
    if chosen["evaluation"] == "expected" and in_words:
        chosen["evaluation"] = "default"  # only a number has an expectation
    if chosen["optimizer"] == "adamw_8bit":
        chosen["distributed"] = "ddp"  # its moments are not divided
    overrides = [f"{group}={option}" for group, option in chosen.items()]
    overrides += [f"prompt.task={task_form(chosen['task'])}"]  # any wording meets any task here
    for choice in chosen.items():
        overrides += COMPANIONS.get(choice, [])
    settings = prepare("train", overrides, catalogue).settings
    assert settings.uncertainty.form == chosen["uncertainty"]
    assert settings.perception.form == chosen["perception"]
    assert settings.dependency.form == chosen["dependency"]
    assert settings.framing.form == chosen["framing"].removesuffix("_small")
    assert settings.optimizer.form == chosen["optimizer"]
    assert (settings.cold_start.form == "none") == (chosen["cold_start"] == "none")


@pytest.mark.parametrize("option", CATALOGUE.options["scorer"])
def test_every_scorer_evaluates_and_none_trains(option: str, catalogue: Catalogue) -> None:
    words = [f"scorer={option}", *(["scorer.path=their.csv"] if option == "table" else [])]
    assert prepare("evaluate", words, catalogue).settings.scorer.form == option
    with pytest.raises(UserError, match=f"scorer={option}: this command does not read scorer; leave it out"):
        prepare("train", words[:1], catalogue)


def test_a_weight_by_the_spread_of_scores_needs_scores(catalogue: Catalogue) -> None:
    words = ["task=degradation", "prompt=degradation", "reward=q_insight_degradation"]
    message = (
        r"uncertainty\.form: exponential weighs groups by the spread of their scores, but task\.form degra"
    )
    with pytest.raises(ValueError, match=message):
        prepare("train", words, catalogue)
    for fine in (["uncertainty=none"], ["uncertainty.alpha=0"], ["training.learner=supervised"]):
        prepare("train", [*words, *fine], catalogue)
    prepare("evaluate", words, catalogue)
    prepare("train", ["mixture=degradation"], catalogue)
    prepare("train", ["stages=scores_then_comparisons"], catalogue)


def test_every_dataset_trains_and_every_benchmark_evaluates(catalogue: Catalogue) -> None:
    names = f"[{','.join(catalogue.sets)}]"
    settings = prepare("train", [f"data={names}", f"benchmark={names}"], catalogue).settings
    assert sorted(settings.dataset) == sorted(settings.data) == sorted(settings.benchmark) == catalogue.sets


def test_sets_of_the_command_line_replace_those_of_any_file(catalogue: Catalogue) -> None:
    words = ["experiment=q_hawkeye", "data={koniq:7046,spaq:8897}", "benchmark={kadid:{limit:9}}"]
    settings = prepare("train", words, catalogue).settings
    assert settings.data == {"koniq": 7046.0, "spaq": 8897.0}
    assert {name: one.limit for name, one in settings.benchmark.items()} == {"kadid": 9}
    assert settings.name == "q_hawkeye__benchmark-_kadid-limit-9___data-koniq-7046+spaq-8897"
    one = prepare("train", ["data=koniq", "benchmark=[]"], catalogue).settings
    assert (one.data, one.benchmark) == ({"koniq": 1.0}, {})
    assert one.dataset.keys() == {"koniq"}


def test_only_sets_in_use_are_shown(catalogue: Catalogue) -> None:
    config = compose_config(
        "train", ["data=koniq", "benchmark=[{spaq:{limit:3}}]", "mixture=degradation"], catalogue
    )
    assert {*keep_used_sets(config).dataset} == {"koniq", "spaq", "dq_495k"}
    assert {*config.dataset} == {*catalogue.sets}


def test_a_set_inherits_what_it_does_not_say() -> None:
    files = {
        "base/set": {"protocol": "all", "options": {"a": 1, "b": 2}},
        "mine": {"defaults": ["base/set"], "protocol": "files", "options": {"b": 3}},
        "yours": {"defaults": ["mine"], "root": "/x"},
    }
    entries = dataset_entries(files)
    mine = {"adapter": "mine", "protocol": "files", "options": {"a": 1, "b": 3}}
    assert entries == {"mine": mine, "yours": {**mine, "root": "/x"}}
    files["mine"]["defaults"] = ["base/set", "_self_"]
    assert dataset_entries(files) == entries
    for wrong, message in (
        (["nowhere"], "dataset mine: defaults: no file 'nowhere'"),
        (["yours"], "inherits from"),
        ("base/set", "dataset mine: defaults: must be a list of names"),
        ([{"koniq": "x"}], "dataset mine: defaults: must be a list of names"),
    ):
        files["mine"]["defaults"] = wrong
        with pytest.raises(UserError, match=message):
            dataset_entries(files)
    files["mine"] = {"options": None}
    with pytest.raises(UserError, match="dataset mine: options: must be a mapping, got None"):
        dataset_entries(files)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=koniq"], True),
        (["data=koniq", "loading=default"], False),
        (["data=koniq", "loading.limit=3"], False),
        (["data=miniature_koniq"], False),
        (["data=koniq", "experiment=q_hawkeye"], False),
        (["data=koniq", "experiment=q_hawkeye", "scale=miniature"], True),
        (["data=koniq", "scale=photographs"], False),
    ],
)
def test_a_loading_that_nobody_chose_is_told(words: list[str], told: bool, catalogue: Catalogue) -> None:
    notes = [note for note in prepare("train", words, catalogue).notes if "loading=miniature" in note]
    assert len(notes) == told


@pytest.mark.parametrize("scale", ["full", "miniature"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_at_every_scale(experiment: str, scale: str, catalogue: Catalogue) -> None:
    given = ["model.path=weights"] if scale == "full" and experiment in CONTINUED else []
    job = prepare("train", [f"experiment={experiment}", f"scale={scale}", *given], catalogue)
    is_tiny = scale == "miniature" or experiment == "supervised_control"  # the default's own control
    assert (job.settings.model.form == "tiny") == is_tiny
    assert job.settings.name is not None
    assert job.settings.name.startswith(experiment)


def test_photographs_are_read_as_large_as_their_scale_says(compose_plain: Compose) -> None:
    run = compose_plain("scale=photographs", "experiment=q_hawkeye")
    assert [*run["data"], *run["benchmark"]] == ["folder", "folder"]
    assert run["model"]["form"] == "tiny"
    side = run["framing"]["side"] * run["framing"]["pieces"]
    assert {run["model"][key] for key in ("min_pixels", "max_pixels")} == {side**2}, "native pixels"
    assert run["loading"]["augmentation"] == "dihedral"
    # every image teaches, with soft labels around its own score
    assert run["cold_start"]["label_resample"] == "each_step"
    assert run["cold_start"]["num_examples"] >= 1_000_000


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "supervised_control"])
def test_full_scale_trains_the_published_model(experiment: str, compose_plain: Compose) -> None:
    run = compose_plain(f"experiment={experiment}")
    model = run["model"]
    limit = 786432 if experiment.startswith(("q_hawkeye", "grpo", "papo", "vppo")) else 12845056
    limit = 196608 if experiment == "mr_iqa" else limit
    name = "Qwen3-VL-2B" if experiment == "mr_iqa" else "Qwen2.5-VL-7B"
    assert (model["min_pixels"], model["max_pixels"]) == (3136, limit)
    assert model["path"] == (None if experiment in CONTINUED else f"Qwen/{name}-Instruct")
    assert (model["form"], model["dtype"], model["tiny"]) == ("pretrained", "bfloat16", None)
    assert model["gradient_checkpointing"] is True
    assert run["optimizer"]["form"] == "adamw_stochastic"


def test_an_adapters_weights_are_wide_enough_for_plain_adamw(catalogue: Catalogue) -> None:
    words = ["model=qwen2_5_vl_7b", "adapter=lora"]
    assert prepare("train", [*words, "cold_start=none"], catalogue).settings.optimizer.form == "adamw"
    with pytest.raises(UserError, match="choose optimizer=adamw_stochastic, or model.dtype=float32"):
        prepare("train", words, catalogue)


@pytest.mark.parametrize("experiment", CONTINUED)
def test_an_experiment_that_goes_on_asks_for_its_start(experiment: str, catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=r"model\.path: is null; give a folder"):
        prepare("train", [f"experiment={experiment}"], catalogue)


def test_visualquality_r1s_split_is_used_by_both_that_train_on_it(compose_plain: Compose) -> None:
    whole = {"koniq": "all", "spaq": "all"}
    for experiment in ("visualquality_r1", "preresq_r1_iqa"):
        run = compose_plain(f"experiment={experiment}")
        assert run["data"] == ["kadid"]
        used = {name: run["dataset"][name]["protocol"] for name in ("kadid", *whole)}
        assert used == {"kadid": "visualquality_r1", **whole}


def test_the_penalty_stays_on_in_preresqs_one_stage(catalogue: Catalogue) -> None:
    words = ["experiment=preresq_r1_iqa", "stages=none"]
    release = ["reward=preresq_r1_release", "task.answer_rule=preresq_r1_release"]
    for more in (["reward=preresq_r1_exploration"], release):
        settings = prepare("train", [*words, *more], catalogue).settings
        assert not settings.stages and "penalty" in settings.reward.terms


@pytest.mark.slow
@pytest.mark.parametrize("word", ["mixture=none", "stages=none"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiments_own_parts_can_be_left_out(experiment: str, word: str, catalogue: Catalogue) -> None:
    words = [f"experiment={experiment}", "scale=miniature"]
    own, less = (prepare("train", chosen, catalogue).settings for chosen in (words, [*words, word]))
    group = word.partition("=")[0]
    assert not getattr(less, group)
    assert all(entry.miniature for entry in less.dataset.values())
    same = ("model", "data", "prompt", "reward", "rollout", "optimizer", "training")
    assert all(getattr(own, node) == getattr(less, node) for node in same)


@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_other_commands_compose_the_same_settings(command: str, catalogue: Catalogue) -> None:
    overrides = ["experiment=q_hawkeye_release", "scale=miniature"]
    assert prepare(command, overrides, catalogue).settings == prepare("train", overrides, catalogue).settings


def test_default_run(catalogue: Catalogue) -> None:
    settings = prepare("train", [], catalogue).settings
    assert settings.model.form == "tiny"
    assert settings.cold_start.form == "sft"
    assert settings.uncertainty.form == "exponential"
    assert settings.perception.form == "exact"
    assert len(settings.benchmark) == 8
    assert all(entry.miniature for entry in settings.dataset.values())
    assert settings.tracking.wandb == "offline"
    assert settings.name == "default"


def test_later_overlay_beats_earlier_and_command_line_beats_both(compose_plain: Compose) -> None:
    full = compose_plain("experiment=q_hawkeye")
    small = compose_plain("experiment=q_hawkeye", "scale=miniature")
    typed = compose_plain(
        "experiment=q_hawkeye", "scale=miniature", "model=qwen2_5_vl_3b", "training.duration.steps=7"
    )
    assert full["model"]["path"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert full["training"]["duration"] == {"steps": None, "epochs": 15.0}
    assert small["model"]["form"] == "tiny"
    assert small["training"]["duration"] == {"steps": 300, "epochs": None}
    assert typed["model"]["path"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert typed["training"]["duration"]["steps"] == 7


@pytest.mark.parametrize(
    ("experiment", "tokens"),
    [(None, 24), ("visualquality_r1", 24), ("q_insight", 40), ("preresq_r1_iqa", 36)],
)
def test_miniature_scale_fits_later_stages(experiment: str | None, tokens: int, catalogue: Catalogue) -> None:
    words = [f"experiment={experiment}"] if experiment else []
    words += ["scale=miniature", "stages=scores_then_comparisons"]
    settings = prepare("train", words, catalogue).settings
    alone = prepare("train", [*words[:-2], "scale=miniature", "stages=none"], catalogue).settings
    stage = settings.stages["comparisons"]
    assert stage.data is not None and stage.benchmark is not None and stage.prompt is not None
    assert [*stage.data] == [*stage.benchmark] == ["miniature_comparison"]
    assert "Which is better?" in stage.prompt.user
    assert all(entry.miniature for entry in settings.dataset.values())
    assert settings.rollout.max_new_tokens == tokens
    same = ("model", "data", "prompt", "reward", "optimizer", "cold_start", "mixture")
    assert all(getattr(settings, node) == getattr(alone, node) for node in same)


def test_miniature_scale_fits_a_mixture(catalogue: Catalogue) -> None:
    words = ["scale=miniature", "mixture=degradation"]
    fitted = prepare("train", words, catalogue).settings
    assert [*fitted.mixture["degradation"].data] == ["miniature_degradation"]
    assert fitted.rollout.max_new_tokens == 40
    again = prepare("train", ["experiment=q_insight", *words], catalogue).settings
    own = prepare("train", ["experiment=q_insight", "scale=miniature"], catalogue).settings
    assert again.model_copy(update={"name": None}) == own.model_copy(update={"name": None})
    both = prepare("train", [*words, "stages=scores_then_comparisons"], catalogue).settings
    assert all(entry.miniature for entry in both.dataset.values()) and len(both.stages) == 2


def test_a_note_shows_long_values_on_one_line(catalogue: Catalogue) -> None:
    overrides = ["scale=miniature", "mixture=degradation"]
    config = compose_config("train", overrides, catalogue)
    (line,) = overruled_choices("train", overrides, config, catalogue)
    assert "\n" not in line and "mixture.degradation.prompt.user=" in line and "... (was " in line


def test_scale_keeps_what_the_experiment_is_about(compose_plain: Compose) -> None:
    full = compose_plain("experiment=q_hawkeye_release")
    small = compose_plain("experiment=q_hawkeye_release", "scale=miniature")
    for node in ("reward", "objective", "uncertainty", "perception"):
        assert _without_strengths(full[node]) == _without_strengths(small[node])
    assert compose_plain("experiment=q_insight", "scale=miniature")["objective"]["kl_coef"] == 0.001
    assert compose_plain("experiment=preresq_r1_iqa", "scale=miniature")["rollout"]["group_size"] == 6


def _without_strengths(node: Any) -> Any:
    """The node without the values that come from ``strengths``."""
    strengths = ("alpha", "gamma", "kl_coef", "tau", "weight")
    if not isinstance(node, dict):
        return node
    return {key: _without_strengths(value) for key, value in node.items() if key not in strengths}


def test_the_default_is_q_hawkeye_at_miniature_scale(catalogue: Catalogue) -> None:
    """The scale repeats the defaults of ``base.yaml`` over the experiment; the two must not drift apart."""
    default = prepare("train", [], catalogue).settings
    small = prepare("train", ["experiment=q_hawkeye", "scale=miniature"], catalogue).settings
    assert (default.name, small.name) == ("default", "q_hawkeye__scale-miniature")
    # the names that it has in its mirrors say how it was asked for
    assert small.model_copy(update={"name": "default", "tracking": default.tracking}) == default
    assert run_id(small) == run_id(default)
    alone = prepare("train", ["scale=miniature"], catalogue).settings
    assert run_id(alone) == run_id(default)


def test_strengths_come_from_the_model_the_command_line_and_the_experiment(compose_plain: Compose) -> None:
    def of(*overrides: str) -> list[Any]:
        run = compose_plain(*overrides)
        terms = run["reward"]["terms"]
        found = [run["uncertainty"]["alpha"], run["perception"]["gamma"], run["objective"]["kl_coef"]]
        found += [terms["accuracy"]["tau"], terms["format"]["weight"], run["rollout"]["group_size"]]
        assert "strengths" not in run
        return [*found, run["twin"]["strengths"]["noise"]]

    tiny, published = [1.0, 2e-3, 0.05, 0.7, 0.25, 8, 30.0], [0.2, 1e-4, 0.04, 0.3, 0.8, 4, 45.0]
    assert of() == of("experiment=supervised_control") == of("model=checkpoint", "model.path=x") == tiny
    assert of("experiment=q_hawkeye") == of("strengths=published") == of("model=qwen2_5_vl_7b") == published
    assert of("experiment=q_hawkeye", "strengths=tiny") == tiny
    assert of("strengths.kl_coef=0.5", "uncertainty=none", "perception=none")[:3] == [0.0, 0.0, 0.5]
    assert of("strengths.uncertainty_alpha=0.5", "uncertainty.alpha=0.4", "uncertainty=rank")[0] == 0.4


def test_published_hyperparameters(compose_plain: Compose) -> None:
    run = compose_plain("experiment=q_hawkeye_release")
    assert run["rollout"]["group_size"] == 4
    assert run["training"]["prompts_per_step"] == 8
    assert run["training"]["duration"]["epochs"] == 15
    assert run["optimizer"]["lr"] == 5e-6
    assert run["optimizer"]["max_grad_norm"] == 0.1
    assert run["lr_schedule"]["form"] == "cosine"
    assert run["lr_schedule"]["warmup"]["steps"] == 50
    assert run["objective"]["kl_coef"] == 0.04
    assert run["uncertainty"]["alpha"] == 0.2
    assert run["uncertainty"]["unparsed_weight"] == 1.0
    assert run["perception"]["gamma"] == 1e-4
    assert run["perception"]["gamma_schedule"]["until"]["epochs"] == 5.0
    assert run["reward"]["terms"]["accuracy"]["tau"] == 0.3
    assert run["reward"]["terms"]["format"]["weight"] == 0.8
    assert (run["model"]["min_pixels"], run["model"]["max_pixels"]) == (3136, 786432)
    assert run["lr_schedule"]["warmup_from"] == "zero"
    assert run["task"]["answer_rule"] == "q_hawkeye_release"
    assert run["uncertainty"]["answer_rule"] == "q_hawkeye_release_uncertainty"


def test_what_q_insights_header_offers_can_be_had(compose_plain: Compose) -> None:
    turns = [f"{node}.system='Ask for the tags.'" for node in ("prompt", "mixture.degradation.prompt")]
    run = compose_plain("experiment=q_insight", "evaluation=one_sample", *turns)
    prompts = (run["prompt"], run["mixture"]["degradation"]["prompt"])
    assert [prompt["system"] for prompt in prompts] == ["Ask for the tags."] * 2
    evaluation = run["evaluation"]
    drawn = {"num_samples": 1, "temperature": 1.0, "max_new_tokens": 512}
    read = {name: {key: readout[key] for key in drawn} for name, readout in evaluation["readouts"].items()}
    assert (evaluation["headline"], read) == ("one_sample", {"one_sample": drawn})


def test_baseline_differs_from_the_method_in_two_modules_only(compose_plain: Compose) -> None:
    method, baseline = compose_plain("experiment=q_hawkeye"), compose_plain("experiment=grpo_baseline")
    assert {key for key in method if method[key] != baseline[key]} == {"uncertainty", "perception"}
    ablated = compose_plain("experiment=q_hawkeye", "uncertainty=none", "perception=none")
    assert ablated == baseline


def test_the_steady_form_differs_in_three_values_only(compose_plain: Compose) -> None:
    """Half the rate, a KL of 0.05 in place of 0.04, and back to the best checkpoint at signs of collapse."""
    method, steady = compose_plain("experiment=q_hawkeye"), compose_plain("experiment=q_hawkeye_steady")
    assert {key for key in method if method[key] != steady[key]} == {"optimizer", "objective", "training"}
    assert steady["optimizer"] == method["optimizer"] | {"lr": method["optimizer"]["lr"] / 2}
    assert (
        steady["objective"] == method["objective"] | {"kl_coef": 0.05}
        and method["objective"]["kl_coef"] == 0.04
    )
    assert steady["training"] == method["training"] | {"on_collapse": "rollback"}


def test_replaced_choice_is_told(catalogue: Catalogue) -> None:
    overrides = ["experiment=q_hawkeye", "scale=miniature", "training=debug"]
    config = compose_config("train", overrides, catalogue)
    (line,) = overruled_choices("train", overrides, config, catalogue)
    assert line.startswith("training=debug: ")
    assert "training.duration.steps=300 (was 4)" in line
    assert overruled_choices("train", ["training=debug"], config, catalogue) == []


def test_choice_of_takes_the_last() -> None:
    assert choice_of("experiment", ["experiment=a", "seed=1", "experiment=b"]) == "b"
    assert choice_of("experiment", ["experiment=null"]) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1,\n", "not readable YAML"),
        ("a: 1\na: 2\n", "not readable YAML"),
        ("- a\n", "must hold a mapping"),
    ],
)
def test_an_unusable_file_is_named_where_it_is_used(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "broken.yaml").write_text(text)
    catalogue = read_catalogue(config_root(), [tmp_path])
    assert "broken" in catalogue.options["optimizer"]
    compose_config("train", [], catalogue)
    with pytest.raises(UserError, match=f"optimizer/broken.yaml: {fault}"):
        compose_config("train", ["optimizer=broken"], catalogue)


def test_folders_of_yaml_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="config folder is missing"):
        read_catalogue(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--config-dir .*nowhere: is no folder"):
        read_catalogue(config_root(), [tmp_path / "nowhere"])


def test_numbers_are_read_as_omegaconf_reads_them() -> None:
    for file in CATALOGUE.files:
        assert OmegaConf.create(file.text) == file.content, file.path


def test_package_header_and_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    inner = tmp_path / "experiments" / "ablation"
    inner.mkdir(parents=True)
    (inner / "no_gamma.yaml").write_text("# why\n# @package _global_\nseed: 3\n")
    found = read_catalogue(tmp_path)
    assert found.options["experiment"] == ["ablation/no_gamma"]
    assert found.files[0].package == "_global_"
    assert found.files[0].group == "experiment/ablation"
