"""The command in this process: quick, and with everything it prints."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kprune.cli.boundary import run


@dataclass(frozen=True)
class Ran:
    """What became of a command line."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Kprune = Callable[..., Ran]


@pytest.fixture
def kprune(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Kprune:
    """Run `kprune` with arguments, in a pipe; `stdin` is what it reads."""

    def command(*arguments: object, stdin: bytes = b"", columns: int | str = 80) -> Ran:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Ran(code, out, err)

    return command


def fits(report: Any, name: str) -> bool:
    """Whether JSON is as the schema of a name says, by a validator that is not kprune's."""
    from jsonschema import Draft202012Validator

    from kprune.verbs.schemas import schema_of

    schema = schema_of(name)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(report)
    # A key that the schema does not know would pass.
    return set(report) <= set(schema["properties"])


@pytest.fixture
def model(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the digits CNN as `model.keras`, in a folder of its own that is the current one."""
    return _copied(samples / "digits_cnn.keras", tmp_path, monkeypatch)


@pytest.fixture
def resnet(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with the residual network, whose sums tie units."""
    return _copied(samples / "digits_resnet.keras", tmp_path, monkeypatch)


def _copied(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    shutil.copy(source, "model.keras")
    return Path("model.keras")


def edited(model: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The model with its config changed in place, its weights as they were."""
    with zipfile.ZipFile(model) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(model, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return model


def with_unknown_layer(model: Path, name: str, kind: str = "RankPool") -> Path:
    """The model with one of its layers turned into a class that kprune has no rule for."""

    def change(config: dict[str, Any]) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["name"] == name)
        layer.update(module="my.layers", class_name=kind, registered_name=f"my>{kind}")

    return edited(model, change)


def folder_as_it_is(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
