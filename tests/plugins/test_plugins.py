"""From a name to the one class it means, or to the sentence that says why there is none."""

import re
import subprocess
import sys

import pytest
from installed_plugins import task_source

from medssl.errors import ConfigError, PluginError, UsageError
from medssl.plugins import list_encoders, list_tasks, load_encoder, load_task, task_config, tasks_in
from medssl.testing import TinyEncoder

BROKEN = "import does_not_exist\n"
HOOK = "import medssl\n@medssl.hookimpl\ndef "
SETTING = "    class Config(medssl.TaskConfig):\n        ratio: float = medssl.Field(0.6, gt=0, lt=1)"


def complaint(name: str, **arguments) -> str:
    with pytest.raises(PluginError) as caught:
        load_task(name, **arguments)
    return str(caught.value)


def entry(name: str):
    return next(entry for entry in list_tasks() if entry.name == name)


def write(folder, text: str, name: str = "task.py"):
    path = folder / name
    path.write_text(text)
    return path


def test_installed_task_is_listed_and_loaded_with_origin(install):
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")}, version="0.3.1")
    assert entry("jigsaw-x").origin == "medssl-p1 0.3.1"
    assert not entry("jigsaw-x").built_in
    loaded = load_task("jigsaw-x")
    assert (loaded.cls.name, loaded.origin, loaded.path, loaded.notes) == ("jigsaw-x", "medssl-p1 0.3.1", None, ())


def test_built_in_tasks_come_through_entry_points():
    built_in = [entry for entry in list_tasks() if entry.built_in]
    assert {"simclr", "masked-volume"} <= {entry.name for entry in built_in}
    for one in built_in:
        assert load_task(one.name).cls.name == one.name


def test_misspelt_name_gets_suggestion_and_notes(install, tmp_path):
    """The error suggests a name, lists those available, and says which plugins failed."""
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    install("medssl-broken", {"other": BROKEN})
    first, available, *notes = complaint("jigsw-x").splitlines()
    assert first == "No pretext task named 'jigsw-x'. Did you mean 'jigsaw-x'?"
    assert available.startswith("Available: ")
    assert "jigsaw-x" in available
    assert notes == [
        "Note: medssl-broken 0.1 failed to load (ModuleNotFoundError: No module named 'does_not_exist'); "
        "see `medssl plugins check`."
    ]


def test_broken_plugin_does_not_stop_others(install):
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    install("medssl-broken", {"other": BROKEN, "another": "raise SystemExit(3)\n"})
    assert load_task("jigsaw-x").notes == ()
    assert complaint("other").startswith("medssl-broken 0.1 failed to load (ModuleNotFoundError")
    assert complaint("another").startswith("medssl-broken 0.1 failed to load (SystemExit: 3)")


def test_broken_plugin_error_keeps_its_cause(install):
    install("medssl-broken", {"other": BROKEN})
    with pytest.raises(PluginError) as caught:
        load_task("other")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_name_clash_error_names_both_plugins(install):
    """Other tasks still load."""
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    install("medssl-p2", {"jigsaw-x": task_source("jigsaw-x"), "mine": task_source("mine")}, version="2.0")
    assert complaint("jigsaw-x").splitlines() == [
        "Two plugins provide the same pretext task:",
        "  'jigsaw-x' is provided by medssl-p1 0.1 and medssl-p2 2.0",
        "Uninstall one, or leave one out with --without-plugin.",
    ]
    assert [entry.status for entry in list_tasks() if entry.name == "jigsaw-x"] == ["clash", "clash"]
    assert load_task("mine").origin == "medssl-p2 2.0"


def test_file_with_installed_task_name_is_a_clash(install, tmp_path):
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    message = complaint("jigsaw-x", files=[write(tmp_path, task_source("jigsaw-x"))])
    assert "'jigsaw-x' is provided by task.py sha256:" in message
    assert "and medssl-p1 0.1" in message


def test_composed_task_gets_files_for_itself_only(tmp_path):
    """A task made of others is given the files; tasks loaded later are not."""
    path = write(tmp_path, task_source("mine", cls="Mine"))
    parts = {"tasks": [{"name": "mine"}, {"name": "rotation"}]}
    told, untold = load_task("combine", files=[path]), load_task("combine")
    combined = told.cls(TinyEncoder(), task_config(told.cls, parts))
    assert list(combined.parts) == ["mine", "rotation"]
    assert (told.cls.__name__, told.cls.__doc__) == (untold.cls.__name__, untold.cls.__doc__)
    with pytest.raises(PluginError, match="No pretext task named 'mine'"):
        untold.cls(TinyEncoder(), task_config(untold.cls, parts))


def test_leaving_one_out_resolves_a_clash(install, monkeypatch):
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    install("medssl-p2", {"jigsaw-x": task_source("jigsaw-x")})
    for switch, origin in (("-medssl-p1", "medssl-p2 0.1"), ("medssl_p1", "medssl-p1 0.1")):
        monkeypatch.setenv("MEDSSL_PLUGINS", switch)
        assert load_task("jigsaw-x").origin == origin


def test_switched_off_task_says_so(install, monkeypatch):
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    monkeypatch.setenv("MEDSSL_PLUGINS", "none")
    assert entry("jigsaw-x").status == "off"
    assert "of medssl-p1 0.1 is switched off by MEDSSL_PLUGINS=none" in complaint("jigsaw-x")
    assert entry("simclr").status == "ok"


def test_task_is_found_despite_differing_entry_point_name(install):
    install("medssl-p1", {"entry-name": task_source("class-name")})
    assert load_task("class-name").origin == "medssl-p1 0.1"
    assert re.search(r"Available: .*\bclass-name\b", complaint("entry-name"))


def test_single_file_loads_with_hash_and_no_pycache(tmp_path):
    """Nothing is written beside the file."""
    path = write(tmp_path, task_source("mine"))
    loaded = load_task("mine", files=[path, path])
    import hashlib

    assert loaded.origin == f"task.py sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    assert loaded.path == path
    assert [one.name for one in tmp_path.iterdir()] == ["task.py"]
    assert sys.modules[loaded.cls.__module__].__file__ == str(path)


def test_edited_file_gives_edited_task(tmp_path):
    path = write(tmp_path, task_source("mine", "Aaaa"))
    first = load_task("mine", files=[path])
    write(tmp_path, task_source("mine", "Bbbb"))  # same size, same second
    assert load_task("mine", files=[path]).cls.__name__ == "Bbbb" != first.cls.__name__


def test_broken_file_is_a_note_missing_an_error(tmp_path):
    broken, good = write(tmp_path, BROKEN, "broken.py"), write(tmp_path, task_source("mine"), "good.py")
    assert load_task("mine", files=[broken, good]).notes[0].startswith("broken.py failed to load (ModuleNotFoundError")
    assert "Note: broken.py failed to load" in complaint("absent", files=[broken])
    with pytest.raises(UsageError, match=r"absent\.py cannot be read"):
        load_task("mine", files=[good, tmp_path / "absent.py"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HOOK + "medssl_pretext_task(): return []\n", "which is not a hook. Did you mean 'medssl_pretext_tasks'?"),
        ("def medssl_pretext_tasks(): return []\n", "but not as a hook. Write @medssl.hookimpl above it."),
        ("x = 1\n", "has no hook. Add `@medssl.hookimpl`"),
        (HOOK + "medssl_pretext_tasks(config): return []\n", "implements a hook wrongly"),
        (HOOK + "medssl_pretext_tasks(): return 3\n", "returns 3. Return a list of classes"),
        (HOOK + "medssl_pretext_tasks(): return [3]\n", "returns 3. Return classes, not instances"),
        (HOOK + "medssl_pretext_tasks(): return [dict]\n", "does not derive from medssl.PretextTask"),
        (HOOK + "medssl_pretext_tasks(): 1 / 0\n", "failed (ZeroDivisionError: division by zero)"),
        (task_source("Bad Name"), "has the name 'Bad Name'"),
        (task_source("x").replace('    name = "x"\n', ""), "has the name None"),
        (task_source("x").replace("    family", "    Config = dict\n    family"), "Config of Task of task.py sha256"),
        ("def (:\n", "failed to load (SyntaxError"),
    ],
)  # fmt: skip
def test_invalid_plugin_error_says_the_fix(tmp_path, text, sentence):
    with pytest.raises(PluginError) as caught:
        tasks_in(write(tmp_path, text))
    assert sentence in str(caught.value)


def test_task_options_are_checked_with_suggestions(tmp_path):
    source = task_source("mine").replace(
        '    family = "test"',
        f'    family = "test"\n{SETTING}',
    )
    cls = load_task("mine", files=[write(tmp_path, source)]).cls
    assert task_config(cls, {"name": "mine", "ratio": "0.5"}).ratio == 0.5
    with pytest.raises(ConfigError) as caught:
        task_config(cls, {"ratoi": 1, "ratio": 2}, origins={"task.ratio": "--set task.ratio=2"})
    assert str(caught.value).splitlines() == [
        "2 problems in the configuration:",
        "  task.ratio: input should be less than 1, got 2  (--set task.ratio=2)",
        "  task.ratoi: no such setting; did you mean 'task.ratio'?",
    ]


def test_encoder_is_loaded_from_a_plugin(install):
    text = (
        "import medssl\nclass Tiny(medssl.Encoder):\n    name = 'tiny-x'\n"
        "@medssl.hookimpl\ndef medssl_encoders(): return [Tiny]\n"
    )
    install("medssl-p1", {"tiny-x": text}, group="medssl.encoders")
    assert [one.name for one in list_encoders()] == ["tiny-x"]
    assert load_encoder("tiny-x").origin == "medssl-p1 0.1"
    with pytest.raises(PluginError, match=r"No encoder named 'dynunit'\. Did you mean 'dynunet'\?"):
        load_encoder("dynunit", known=("dynunet", "segresnet"))


def test_listing_imports_neither_torch_nor_plugins(install):
    site = install("medssl-broken", {"other": "raise RuntimeError('imported')\n"})
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import medssl, medssl.config, medssl.hookspecs\n"
        "from medssl.plugins import list_tasks\n"
        "assert 'other' in [entry.name for entry in list_tasks()]\n"
        "print(sorted({'torch', 'monai', 'mlflow', 'medssl_tasks'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
