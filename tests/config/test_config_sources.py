"""Defaults, files, --set and flags: who wins, and what is said when something is wrong."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from medssl.config import FinetuneConfig, PretrainConfig, check_options, load_config, resolve_config
from medssl.errors import ConfigError, UsageError

NEEDED = {"cohort": "cohort", "task.name": "simclr"}


def write(folder: Path, text: str, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(**arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(PretrainConfig, **{"flags": NEEDED, **arguments})
    return str(caught.value)


def test_precedence_is_flag_set_later_file_earlier_file(tmp_path):
    first = write(tmp_path, "optim: {lr: 0.1, clip_norm: 5}\nloop: {steps: 1, seed: 1, batch_size: 1}\n", "first.yaml")
    second = write(tmp_path, "loop: {steps: 2, seed: 2, batch_size: 2}\n", "second.yaml")
    config = load_config(
        PretrainConfig,
        files=[first, second],
        settings=["loop.seed=3", "loop.steps=3"],
        flags=NEEDED | {"loop.steps": 4},
    )
    assert (config.optim.lr, config.optim.clip_norm) == (0.1, 5.0)
    assert (config.loop.batch_size, config.loop.seed, config.loop.steps) == (2, 3, 4)


def test_flag_of_none_changes_nothing(tmp_path):
    config = load_config(
        PretrainConfig, files=[write(tmp_path, "loop: {steps: 7}")], flags=NEEDED | {"loop.steps": None}
    )
    assert config.loop.steps == 7


def test_problems_are_listed_with_origin_and_suggestion(tmp_path):
    path = write(tmp_path, "cohort: x\ntask: {name: simclr}\noptim: {warmup: 100}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(PretrainConfig, files=[path], settings=["optim.lr=-1"])
    assert str(caught.value).splitlines() == [
        "2 problems in the configuration:",
        "  optim.lr: input should be greater than 0, got -1  (--set optim.lr=-1)",
        f"  optim.warmup: no such setting; did you mean 'optim.warmup_fraction'?  ({path})",
    ]


def test_suggestion_includes_group():
    assert "lr: no such setting; did you mean 'optim.lr'?" in problems(settings=["lr=1"])


def test_unknown_key_without_match_lists_settings():
    assert "tracking.qqq: no such setting; there are enabled, uri, experiment, pictures" in problems(
        settings=["tracking.qqq=1"]
    )


def test_missing_required_setting_is_named():
    with pytest.raises(ConfigError, match=r"cohort: required, but not set[\s\S]*task: required, but not set"):
        load_config(PretrainConfig)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("loop.devices=0", "loop.devices: input should be greater than or equal to 1 or 'auto', got 0"),
        ("loop.workers=many", "loop.workers: input should be a whole number or 'auto', got 'many'"),
        ("tracking.pictures=maybe", "tracking.pictures: input should be 'auto', 'on' or 'off', got 'maybe'"),
        ("optim=3", "optim: input should be a mapping, got 3"),
        ("loop.steps=1.5", "loop.steps: input should be a whole number, got 1.5"),
        ("nonsense", "--set nonsense: not of the form KEY=VALUE"),
        ("optim.lr=[1", "--set optim.lr=[1, line 1"),
        ("optim.lr=.nan", "optim.lr: input should be"),
        ("patch=[16,16]", "patch: needs 3 values, got 2"),
        ("patch=[16,16,16,16]", "patch: needs 3 values, got 4"),
        ("optim.betas=[0.9]", "optim.betas: needs 2 values, got 1"),
        ("optim.lr=true", "optim.lr: input should be a number, got True"),
        ("loop.workers=false", "loop.workers: input should be a number, got False"),
        ("patch=[16,16,true]", "patch: input should be a number, got [16, 16, True]"),
        ("sampling.factors={modality: {CT: true}}", "sampling.factors: input should be a number"),
        ("optim=&a {lr: *a}", "aliases are not read; write the value out"),
    ],
)
def test_bad_value_is_named_with_remedy(setting, sentence):
    assert sentence in problems(settings=[setting])


def test_task_option_refuses_switch_for_number():
    class Options(BaseModel):
        share: float = 0.5
        both: bool = False

    assert check_options(Options, {"share": 1, "both": True}).both
    with pytest.raises(ConfigError, match=r"task\.share: input should be a number, got True"):
        check_options(Options, {"share": True}, prefix="task.")


def test_problem_hides_password():
    assert "http://***@host" in problems(settings=["tracking.uri=[http://me:secret@host]"])
    assert "secret" not in problems(settings=["tracking.uri=[http://me:secret@host]"])


def test_problem_names_flag():
    assert "(--steps)" in problems(flags=NEEDED | {"loop.steps": 0})
    assert "(--task)" in problems(flags={"cohort": "x", "task.name": ""})


def test_problem_shortens_long_value():
    assert len(problems(settings=["loop.steps=" + "x" * 5000])) < 300


def test_origins_name_source_of_each_value(tmp_path):
    path = write(tmp_path, "optim: {lr: 0.1}\nloop: {seed: 4}\n")
    resolved = resolve_config(
        PretrainConfig, files=[path], settings=["loop.seed=5"], flags={**NEEDED, "loop.batch_size": 2}
    )
    assert resolved.origins == {
        "optim.lr": str(path),
        "loop.seed": "--set loop.seed=5",
        "cohort": "--cohort",
        "task.name": "--task",
        "loop.batch_size": "--batch-size",
    }


def test_task_name_may_stand_alone():
    assert load_config(PretrainConfig, settings=["task=simclr", "cohort=x"]).task == {"name": "simclr"}
    config = load_config(PretrainConfig, settings=["task=moco", "task.queue=8", "cohort=x", "encoder=segresnet"])
    assert config.task == {"name": "moco", "queue": 8}
    assert config.encoder.name == "segresnet"


def test_origin_of_name_survives_when_group_grows(tmp_path):
    path = write(tmp_path, "task: moco\ncohort: x\n")
    resolved = resolve_config(PretrainConfig, files=[path], settings=["task.queue=8"])
    assert resolved.origins["task.name"] == str(path)
    assert load_config(PretrainConfig, files=[path], settings=["task=simclr"]).task == {"name": "simclr"}


def test_home_folder_is_expanded_in_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(PretrainConfig, files=[write(tmp_path, "cohort: ~/cohort\ntask: simclr\n")])
    assert config.cohort == tmp_path / "cohort"


def test_missing_file_and_invalid_yaml_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"no configuration file .*absent\.yaml"):
        load_config(PretrainConfig, files=[tmp_path / "absent.yaml"])
    with pytest.raises(ConfigError, match=r"c\.yaml, line 2, column \d+: not valid YAML"):
        load_config(PretrainConfig, files=[write(tmp_path, "loop: {steps: 1\noptim: }\n")])
    with pytest.raises(ConfigError, match="holds a list at its top"):
        load_config(PretrainConfig, files=[write(tmp_path, "[1, 2]")])
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(PretrainConfig, files=[tmp_path])


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(PretrainConfig, files=[path])


def test_empty_file_changes_nothing(tmp_path):
    assert load_config(PretrainConfig, files=[write(tmp_path, "# nothing\n")], flags=NEEDED).loop.steps == 1000


def test_finetuning_takes_a_number_of_labels_or_all():
    for text, value in (("5", 5), ("all", "all")):
        config = load_config(
            FinetuneConfig, settings=[f"num_labelled={text}"], flags={"cohort": "x", "init": "scratch"}
        )
        assert config.num_labelled == value
    with pytest.raises(ConfigError, match="num_labelled: input should be greater than or equal to 1 or 'all', got 0"):
        load_config(FinetuneConfig, settings=["num_labelled=0"], flags={"cohort": "x", "init": "scratch"})
