"""The command against a real server and worker."""

import csv
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.client.conftest import DATA, KEY, Command, command_environment, command_line
from tests.support.processes import ROOT, Api


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_results_are_csv_where_there_is_no_terminal(command: Command) -> None:
    done = command("classify", "tests/data/0018-bag.png", "LICENSE")
    assert [(row["name"], row["class"], row["error_code"]) for row in rows(done.stdout)] == [
        ("tests/data/0018-bag.png", "Bag", ""),
        ("LICENSE", "", "not_an_image"),
    ]
    assert done.returncode == 1, "one of the files has no class"
    assert "2 images, 1 failed (not_an_image 1), job " in done.stderr


def test_results_are_a_table_in_a_terminal(api: Api, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    running = subprocess.Popen(
        command_line("classify", "tests/data/0018-bag.png"),
        cwd=ROOT,
        env=command_environment(tmp_path, api.url),
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    _, errors = running.communicate(timeout=60)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert [line.split()[:2] for line in shown.splitlines()] == [["file", "class"], ["tests/data/0018-bag.png", "Bag"]]
    assert b"1 image, job" in errors


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "json"])
def test_a_folder_is_written_into_a_file(command: Command, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"classes.{suffix}"
    done = command("classify", "tests/data", "-o", out, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = out.read_text()
    if suffix == "csv":
        found = rows(text)
    else:
        found = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.splitlines()]
    assert [row["name"] for row in found] == sorted(path.name for path in DATA.glob("*.png"))
    assert all(row["status"] == "succeeded" for row in found)
    assert list(tmp_path.glob("*.part")) == []


def test_jobs_are_submitted_shown_watched_and_deleted(command: Command) -> None:
    flags = ("--lane", "bulk", "--model", "fmnist-mlp@1", "--top-k", "2")
    job_id = command("submit", "tests/data", *flags).stdout.strip()
    watched = command("watch", "last")
    assert watched.stdout.splitlines()[-1].startswith("completed: 30 images: 0 pending, 30 succeeded")
    assert watched.returncode == 0
    assert job_id in command("jobs").stdout
    shown = json.loads(command("job", "last", "--json").stdout)
    assert (shown["id"], shown["lane"], shown["model"]) == (job_id, "bulk", "fmnist-mlp@1")
    lines = command("results", job_id, "--json").stdout.splitlines()
    assert [len(json.loads(line)["top_k"]) for line in lines] == [2] * 30
    assert command("job", job_id).stdout.startswith(job_id)
    assert len(rows(command("results", job_id).stdout)) == 30
    assert rows(command("results", job_id, "--failed").stdout) == []
    refused = command("retry", "last")
    assert (refused.returncode, "nothing_to_retry" in refused.stderr) == (3, True)
    assert command("cancel", "last").returncode == 0
    assert command("delete", "last").returncode == 0
    gone = command("job", "last")
    assert (gone.returncode, "job_expired" in gone.stderr) == (3, True)
    assert "fmnist-mlp@1" in command("models").stdout


def test_pictures_come_from_stdin_and_names_are_chosen(api: Api, command: Command, tmp_path: Path) -> None:
    bag = (DATA / "0018-bag.png").read_bytes()
    done = subprocess.run(
        command_line("classify", "-"), env=command_environment(tmp_path, api.url), input=bag, capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert [row["class"] for row in rows(done.stdout.decode())] == ["Bag"]
    bags = rows(command("classify", "tests/data", "--name", "*bag*").stdout)
    assert [row["class"] for row in bags] == ["Bag"] * 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["classify"], 2, "Name at least one file, folder or URL."),
        (["classify", "no-such-file.png"], 2, "no-such-file.png: no such file or folder"),
        (["classify", "docs/decisions"], 2, "docs/decisions: no pictures below it"),
        (["classify", "LICENSE", "-o", "classes.xls"], 2, "the name must end with .csv, .ndjson, .json"),
        (["classify", "LICENSE", "--urls", "no-such-list"], 2, "no such file"),
        (["--url", "localhost:8000", "jobs"], 2, "'localhost:8000' is no address like http://127.0.0.1:8000"),
        (["--api-key-file", "no-such-key", "jobs"], 2, "No such file or directory"),
        (["job", "last"], 2, "This command has made no job at http://"),
        (["classify", "LICENSE", "--model", "resnet"], 3, "unknown_model: "),
    ],
)
def test_mistakes_are_one_line_and_an_exit_status(command: Command, arguments: list[str], code: int, says: str) -> None:
    done = command(*arguments)
    assert done.returncode == code
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_key_that_is_none_and_one_that_is_unknown(command: Command, tmp_path: Path) -> None:
    for key in ("a\nkey", "schlüssel", "a-wrong-key-0123456789"):
        done = command("jobs", DARKROOM_API_KEY=key)
        assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    (tmp_path / "key").write_text(KEY + "\n")
    assert command("--api-key-file", tmp_path / "key", "jobs", DARKROOM_API_KEY="x").returncode == 0


def test_settings_come_from_the_config_if_the_environment_has_none(api: Api, command: Command, tmp_path: Path) -> None:
    config = tmp_path / "state" / "darkroom" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'url = "{api.url}"\napi_key = "{KEY}"\n')
    assert command("jobs", DARKROOM_URL="", DARKROOM_API_KEY="").returncode == 0
    config.write_text('urls = "x"\n')
    done = command("jobs")
    assert (done.returncode, "config.toml: unknown: urls" in done.stderr) == (2, True)


def test_the_doctor_sends_a_picture_there_and_back(command: Command) -> None:
    done = command("doctor")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    well = {line.split()[1] for line in lines if line.startswith("ok ")}
    assert {"address:", "key:", "redis:", "workers:", "picture:"} <= well, done.stdout


def test_names_of_any_kind_come_back_whole(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "__MACOSX").mkdir(parents=True)
    bag = (DATA / "0018-bag.png").read_bytes()
    names = [
        "line\nbreak.png",
        "x" * 246 + ".png",
        "=1+1.png",
        "b\u2028c\x85.png",
        "ü.png",
        "__MACOSX/a.png",
        "C:\\x.png",
    ]
    for name in names:
        (folder / name).write_bytes(bag)
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(bag)
    done = command("classify", folder, "-o", tmp_path / "all.ndjson")
    found = [json.loads(line) for line in (tmp_path / "all.ndjson").read_text().splitlines()]
    assert done.returncode == 0, done.stderr
    assert sorted(it["name"] for it in found) == sorted([*names, os.fsdecode(b"\xff\xfe.png")])
    table = command("classify", folder, "--format", "table").stdout
    assert len(table.splitlines()) == 9, "a name is on one line"
    assert "'=1+1.png" in command("classify", folder).stdout


def test_what_cannot_be_read_fails_in_its_place(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    bag = (DATA / "0018-bag.png").read_bytes()
    for name in ("a.png", "z.png", ".b.png", "deep/.hidden/c.png", "deep/d.png", "notes.txt"):
        (folder / name).write_bytes(bag)
    os.mkfifo(folder / "pipe.png")
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "proc.png").symlink_to("/proc/self/status")  # its size is not what one reads
    done = command("classify", folder)
    assert [(row["name"], row["class"] or row["error_code"]) for row in rows(done.stdout)] == [
        ("a.png", "Bag"),
        ("deep/d.png", "Bag"),
        ("empty.png", "empty_upload"),
        ("gone.png", "unreadable"),
        ("pipe.png", "unreadable"),
        ("proc.png", "unreadable"),
        ("z.png", "Bag"),
    ]
    assert done.returncode == 1


def test_a_full_disk_is_one_line(api: Api, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command_line("classify", "tests/data", "--quiet"), cwd=ROOT, env=command_environment(tmp_path, api.url),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "No space left on device" in done.stderr


def test_a_closed_pipe_is_no_error(api: Api, tmp_path: Path) -> None:
    with subprocess.Popen(
        command_line("classify", *["tests/data/0018-bag.png"] * 5000), cwd=ROOT,
        env=command_environment(tmp_path, api.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
    assert (running.returncode, errors) == (0, b"")


def test_ctrl_c_says_how_to_go_on(api: Api, tmp_path: Path) -> None:
    with subprocess.Popen(
        command_line("classify", *["tests/data/0018-bag.png"] * 5000), cwd=ROOT,
        env=command_environment(tmp_path, api.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.readline()  # its rows are more than a pipe holds: it cannot have come to its end
        running.send_signal(signal.SIGINT)
        running.stdout.close()
        errors = running.stderr.read().decode()
    assert running.returncode == 130
    assert "darkroom: interrupted: job " in errors
    assert "the same command goes on" in errors
