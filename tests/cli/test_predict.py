"""`edgeseg predict`: files, exit codes, reports."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli.predict import predict
from edgeseg.errors import InputError, PartialFailureError, SizeError, StorageError, UsageError
from edgeseg.predictor import Predictor
from edgeseg.results import Result
from tests.pictures import Image, encoded
from tests.runtimes.bundles import make_tiny_bundle, picture

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., Any]

app = typer.Typer()
app.command()(predict)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)


@pytest.fixture
def run(bundle: Bundle, tmp_path: Path) -> Run:
    """Run the command on a source, writing to ``tmp_path / "out"``."""

    def call(source: str | Path, *words: str) -> object:
        out = ["--out", str(tmp_path / "out")]
        return CliRunner().invoke(app, [str(bundle.path), str(source), *out, "--threads", "1", *words])

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures and, between them, a broken one."""
    path = tmp_path / "in"
    path.mkdir()
    for index in (1, 2, 4):
        write_picture(path / f"{index}.png", index)
    (path / "3.png").write_bytes(b"not a picture")
    return path


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 60)) -> Path:
    assert cv2.imwrite(str(path), picture(size, seed)[..., ::-1])
    return path


def read(path: Path) -> NDArray[np.uint8]:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found, np.uint8)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_image_gives_an_overlay_and_a_summary(run: Run, tmp_path: Path) -> None:
    done = run(write_picture(tmp_path / "a.png"))
    assert done.exit_code == 0, done.exception
    assert files(tmp_path / "out") == ["a_overlay.png"]
    assert done.stdout == ""
    assert done.stderr.startswith(f"1 picture in '{tmp_path / 'out'}'; median ms: decode ")
    assert "postprocess" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_kind(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    done = run(path, "--labels", "--color", "--cutout", "--scores", "--cutout-class", "class 2")
    assert done.exit_code == 0, done.exception
    assert files(tmp_path / "out") == [f"a_{kind}.png" for kind in ("color", "cutout", "labels", "scores")]
    with Predictor(bundle, scores=True) as predictor:
        wanted = predictor(path)
    assert wanted.scores is not None
    assert np.array_equal(read(tmp_path / "out" / "a_labels.png"), wanted.labels)
    assert np.array_equal(read(tmp_path / "out" / "a_cutout.png")[..., 3] == 255, wanted.labels == 2)
    assert np.array_equal(read(tmp_path / "out" / "a_scores.png"), np.rint(wanted.scores * 255).astype(np.uint8))


@pytest.mark.parametrize(("output", "size"), [("source", (40, 60)), ("network", (32, 48)), ("20x30", (20, 30))])
def test_output_size(run: Run, tmp_path: Path, output: str, size: tuple[int, int]) -> None:
    assert run(write_picture(tmp_path / "a.png"), "--labels", "--overlay", "--output", output).exit_code == 0
    for kind in ("labels", "overlay"):
        assert read(tmp_path / "out" / f"a_{kind}.png").shape[:2] == size


def test_folder_with_a_broken_picture(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run(folder, "--labels")
    assert isinstance(done.exception, PartialFailureError)
    assert done.exception.exit_code == 9
    assert str(done.exception).startswith("1 of 4 pictures failed")
    assert files(tmp_path / "out") == ["1_labels.png", "2_labels.png", "4_labels.png"]
    reported, summary = done.stderr.splitlines()
    assert reported.startswith("failed: ")
    assert "3.png" in reported
    assert "3 pictures in" in summary
    assert "1 failed" in summary


def test_json_lines(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run(folder, "--json", "--quiet")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["1.png", "2.png", "3.png", "4.png"]
    assert set(lines[0]) == {"source", "size", "shares", "timings", "files", "damaged", "notes"}
    assert lines[0]["damaged"] == []
    assert lines[0]["size"] == [40, 60]
    assert sum(lines[0]["shares"].values()) == pytest.approx(1.0, abs=1e-4)
    assert set(lines[0]["timings"]) == {"decode", "pre", "infer", "postprocess"}
    assert lines[0]["files"] == [str(tmp_path / "out" / "1_overlay.png")]
    assert set(lines[2]) == {"source", "error"}
    assert done.stderr.count("\n") == 1  # the failure alone


def test_broken_single_picture_is_the_commands_own_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    done = run(tmp_path / "a.png", "--quiet")
    assert isinstance(done.exception, InputError)
    assert done.stderr == ""


def test_folder_of_broken_pictures_only(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"not a picture")
    done = run(tmp_path / "in")
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("none of the 2 pictures")


def write_damaged(path: Path) -> Path:
    """A JPEG with a hole in its middle."""
    data = bytearray(cv2.imencode(".jpg", picture((240, 320), 0))[1].tobytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    return path


def test_a_damaged_picture_is_reported_and_done(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").unlink()
    damaged = write_damaged(folder / "3.jpg")
    done = run(folder, "--json")
    assert done.exit_code == 0, done.exception
    message, summary = done.stderr.splitlines()
    assert message.startswith(f"damaged: {damaged}: part of the picture is lost or wrong")
    assert "4 pictures in" in summary
    assert "1 damaged" in summary
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(line["damaged"]) for line in lines] == [0, 0, 1, 0]
    assert "3_overlay.png" in files(tmp_path / "out")


def test_strict_refuses_damaged_pictures(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").unlink()
    damaged = write_damaged(folder / "3.jpg")
    done = run(folder, "--strict")
    assert isinstance(done.exception, PartialFailureError)
    assert done.exception.exit_code == 9
    assert done.stderr.startswith("failed: picture '")
    assert "is damaged: part of the picture" in done.stderr.splitlines()[0]
    done = run(damaged, "--strict", "--quiet")
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 7


def test_max_pixels(run: Run, folder: Path) -> None:
    (folder / "3.png").unlink()
    assert run(folder, "--max-pixels", "2400").exit_code == 0
    done = run(folder / "1.png", "--max-pixels", "2399")
    assert isinstance(done.exception, InputError)
    assert "40x60, above 2399 pixels" in str(done.exception)
    assert run(folder, "--max-pixels", "0").exit_code == 2


def test_limit_and_recursive(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "--limit", "2").exit_code == 0
    assert files(tmp_path / "out") == ["1_overlay.png", "2_overlay.png"]
    (folder / "sub").mkdir()
    write_picture(folder / "sub" / "1.png")
    assert isinstance(run(folder, "--recursive", "--labels").exception, PartialFailureError)
    assert "sub/1_labels.png" in files(tmp_path / "out")


def test_equal_stems(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "in" / "a.jpg", 1)
    assert run(tmp_path / "in").exit_code == 0
    assert files(tmp_path / "out") == ["a_overlay.png", "a_png_overlay.png"]


def test_several_sources_keep_their_folders(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_picture(tmp_path / folder / "1.png")
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    done = run(tmp_path / "a" / "1.png", str(tmp_path / "b"), str(tmp_path / "gone*.png"), "--labels", "--json")
    assert isinstance(done.exception, PartialFailureError)
    assert files(tmp_path / "out") == ["a/1_labels.png", "b/1_labels.png"]
    said = done.stderr.splitlines()
    assert said[0].startswith("passed over: 1 file that is no picture (")
    assert said[1].startswith("failed: no file matches the pattern '")
    assert [len(json.loads(line).get("files", [])) for line in done.stdout.splitlines()] == [1, 1, 0]
    with pytest.raises(UsageError, match="choose another"):
        predict(bundle.path, [str(tmp_path / "b" / "1.png"), str(tmp_path / "b" / "1.png")], out=tmp_path / "b")


def test_a_second_target_is_not_taken_for_a_source(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(folder, "--target", "ort", "openvino")
    assert isinstance(done.exception, UsageError)
    assert "'openvino' would be a source here" in str(done.exception)
    monkeypatch.chdir(folder)
    (folder / "openvino").mkdir()
    write_picture(folder / "openvino" / "5.png")
    assert run("openvino", "--target", "ort").exit_code == 0


def test_a_number_is_the_folder_of_that_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0001").mkdir()
    write_picture(tmp_path / "0001" / "x.png")
    assert run("0001", "--labels").exit_code == 0
    assert files(tmp_path / "out") == ["x_labels.png"]


def test_what_was_passed_over_or_left_out_is_said_unless_quiet(run: Run, folder: Path) -> None:
    (folder / "3.png").unlink()
    (folder / "notes.txt").write_text("no picture")
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    more = [Image.fromarray(picture((40, 60), 1))]
    (folder / "5.gif").write_bytes(encoded(picture((40, 60), 0), "GIF", save_all=True, append_images=more))
    done = run(folder, "--json")
    assert done.exit_code == 0, done.exception
    assert done.stderr.splitlines()[:3] == [
        "passed over: 1 file that is no picture (notes.txt)",
        "passed over: 1 video (clip.mp4); give each by itself",
        f"note: {folder / '5.gif'}: only the first of its pictures is taken",
    ]
    notes = [json.loads(line)["notes"] for line in done.stdout.splitlines()]
    assert notes == [[], [], [], ["only the first of its pictures is taken"]]
    assert run(folder, "--quiet").stderr == ""


@pytest.mark.parametrize("name", [" lead.png", "two\nlines.png", "caf\udce9.png", "\x1b[2J.png", "100%d.png"])
def test_names_survive_to_the_results(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "plain.png").rename(tmp_path / "in" / name)
    for source in (tmp_path / "in", tmp_path / "in" / name):
        done = run(source, "--labels", "--json")
        assert done.exit_code == 0, done.exception
        assert json.loads(done.stdout)["source"] == str(tmp_path / "in" / name)
        assert files(tmp_path / "out") == [f"{name[:-4]}_labels.png"]
    (tmp_path / "in" / name).write_bytes(b"no picture")
    write_picture(tmp_path / "in" / "z.png")
    failed, *_ = run(tmp_path / "in").stderr.splitlines()
    assert failed.startswith("failed: picture '")
    assert failed.isprintable()


def test_video(run: Run, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for seed in range(5):
        writer.write(picture((48, 64), seed))
    writer.release()
    done = run(tmp_path / "clip.avi", "--overlay", "--labels")
    assert done.exit_code == 0, done.exception
    assert files(tmp_path / "out") == [*(f"clip_labels/{index:06d}.png" for index in range(5)), "clip_overlay.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip_overlay.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
    capture.release()


@pytest.mark.parametrize(
    ("source", "words", "error", "text"),
    [
        ("gone.png", [], InputError, "no picture, folder or video"),
        ("in", ["--output", "big"], UsageError, "--output 'big'"),
        ("in", ["--target", "openvinno"], UsageError, "did you mean"),
        ("in", ["--cutout", "--cutout-class", "cat"], UsageError, "unknown class"),
    ],
)
def test_refusals(
    run: Run, folder: Path, tmp_path: Path, source: str, words: list[str], error: type[Exception], text: str
) -> None:
    done = run(folder.parent / source, *words)
    assert isinstance(done.exception, error)
    assert text in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = run(tmp_path / "in")
    assert isinstance(done.exception, InputError)
    assert "holds no images" in str(done.exception)


def test_writing_into_the_source_folder_is_refused(bundle: Bundle, folder: Path) -> None:
    before = files(folder)
    with pytest.raises(UsageError, match="choose another"):
        predict(bundle.path, [str(folder)], out=folder)
    assert files(folder) == before


def test_refused_sizes_are_failures_of_their_pictures(tmp_path: Path) -> None:
    from edgeseg.specs import ResizeRule

    strict = make_tiny_bundle(tmp_path, name="strict", resize=ResizeRule("none"))
    with pytest.raises(SizeError):
        predict(strict.path, [str(write_picture(tmp_path / "a.png"))], out=tmp_path / "out", quiet=True)


def test_full_disk_ends_the_command(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("cannot write: the disk is full")

    monkeypatch.setattr("edgeseg.writer.write_bytes", full)
    assert isinstance(run(folder).exception, StorageError)
    assert no_threads()


def test_interrupt_says_how_far_it_got(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeseg.writer import ResultWriter

    write = ResultWriter.write
    written: list[int] = []

    def interrupted(self: ResultWriter, result: Result) -> list[Path]:
        if written:
            raise KeyboardInterrupt
        written.append(1)
        return write(self, result)

    monkeypatch.setattr(ResultWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(bundle.path, [str(folder)], out=tmp_path / "out")
    assert capsys.readouterr().err == "stopped after 1 picture\n"
    assert files(tmp_path / "out") == ["1_overlay.png"]
    assert no_threads()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_real_interrupt_ends_a_real_process(bundle: Bundle, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", size=(400, 600))
    (tmp_path / "in").mkdir()
    for index in range(3000):
        (tmp_path / "in" / f"{index}.png").symlink_to(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from edgeseg.cli.predict import predict\n"
        "predict(Path(sys.argv[1]), [sys.argv[2]], out=Path(sys.argv[3]), as_json=True)"
    )
    words = [sys.executable, "-c", code, str(bundle.path), str(tmp_path / "in"), str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert Path(first["files"][0]).is_file()
    assert process.returncode != 0
    assert "\nKeyboardInterrupt" in said
    assert said.startswith("stopped after ")
    assert 1 <= len(files(tmp_path / "out")) < 3000
    assert all(name.endswith("_overlay.png") and not name.startswith(".") for name in files(tmp_path / "out"))


def no_threads() -> bool:
    gc.collect()
    return not [thread for thread in threading.enumerate() if thread.name.startswith("edgeseg-")]
