"""The journal: durable, one process at a time, and honest about damage; a full disk loses nothing that is in it."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_distill.cli import run
from mind_distill.errors import Stopped, UserError
from mind_distill.generation.endpoint import Endpoint, Message, Reply, Request
from mind_distill.generation.journal import Journal, Totals
from mind_distill.generation.merging import absorb
from mind_distill.generation.recovery import recover

ENDPOINT = Endpoint(base_url="http://localhost:1/v1", model="m")


def request(n: int) -> Request:
    return Request(ENDPOINT, (Message("user", f"question {n}"),))


def reply(text: str) -> Reply:
    return Reply(text, "stop", 3, 4, 0, "m", 0.5, 1, None)


def fill(path: Path, n: int, size: int = 300) -> None:
    with Journal(path) as journal:
        for i in range(n):
            attempt, _ = journal.book("e", Totals(0, 9, 9))
            journal.settle(attempt, "e", Totals(0, 3, 4, 0, 5), request(i).key(), reply(f"answer {i} " + "x" * size))


def test_an_answer_is_kept_over_a_restart_with_its_cost(tmp_path: Path) -> None:
    fill(tmp_path / "j", 20)
    with Journal(tmp_path / "j") as journal:
        assert journal.totals() == Totals(20, 60, 80, 0, 100, 0) and len(journal) == 20
        found = journal.get(request(7).key())
        assert found is not None and found.text.startswith("answer 7 ")
        assert journal.get(request(20).key()) is None
    assert sorted(os.listdir(tmp_path)) == ["j"], "no lock, no spare, no log is left"


@settings(max_examples=8, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(st.characters(codec=None), max_size=30), min_size=5))
def test_any_text_comes_back_as_it_was(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("j") / "j"
    with Journal(path) as journal:
        for n, text in enumerate(texts):
            journal.put(request(n), reply(text))
    with Journal(path) as journal:
        found = [journal.get(request(n).key()) for n in range(len(texts))]
    as_bytes = [kept.text.encode("utf-16-le", "surrogatepass") for kept in found if kept is not None]
    assert as_bytes == [text.encode("utf-16-le", "surrogatepass") for text in texts]


def test_an_answer_of_five_megabytes_is_one_like_another(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put(request(0), reply("é" * 5_000_000))
        journal.put(request(1), reply("short"))
        first, second = journal.get(request(0).key()), journal.get(request(1).key())
        assert first and second and len(first.text) == 5_000_000 and second.text == "short"


def test_an_attempt_is_on_disk_before_it_may_be_sent_and_is_charged_if_nothing_more_is_heard(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        journal = Journal(tmp_path / "j")
        _, booked = journal.book("e", Totals(0, 11, 22, 0, 33, 1))
        booked.result()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Journal(tmp_path / "j") as journal:
        assert journal.totals() == Totals(1, 11, 22, 0, 33, 1)
    with Journal(tmp_path / "j") as journal:
        assert journal.totals() == Totals(1, 11, 22, 0, 33, 1), "charged once"


def test_hundreds_of_writes_share_a_handful_of_commits(journal: Journal) -> None:
    commits: list[int] = []
    plain = journal._commit
    journal._commit = lambda writes: (commits.append(len(writes)), plain(writes))[1]  # type: ignore[method-assign]
    wait([journal.book("e", Totals())[1] for _ in range(500)])
    assert sum(commits) == 500 and len(commits) < 100


def test_a_second_process_is_refused_within_a_second_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = f"from mind_distill.generation.journal import Journal; j = Journal({str(tmp_path / 'j')!r}); print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"being written by process {holder.pid} on"):
        Journal(tmp_path / "j")
    assert time.monotonic() - begun < 1
    holder.kill()
    holder.communicate()
    Journal(tmp_path / "j").close()


def test_of_many_processes_that_open_and_close_one_at_a_time_has_it(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        counts = pool.map(_take_turns, [tmp_path / "j"] * 4)
    with Journal(tmp_path / "j") as journal:
        assert journal.totals().requests == sum(counts) > 0


def _take_turns(path: Path) -> int:
    taken = 0
    for _ in range(15):
        try:
            with Journal(path) as journal:
                before = journal.totals().requests
                journal.book("e", Totals())[1].result()
                assert journal.totals().requests == before + 1
                taken += 1
        except UserError:
            time.sleep(0.002)
    return taken


def test_a_write_that_cannot_be_made_is_told_to_who_waits_for_it(journal: Journal) -> None:
    with pytest.raises(OverflowError):
        journal.write([], "e", Totals(pico_usd=1 << 70))


# Damage


def test_a_row_whose_bytes_changed_is_named_and_asked_again_and_blocks_no_other(tmp_path: Path) -> None:
    fill(tmp_path / "j", 5)
    with sqlite3.connect(tmp_path / "j") as base:
        base.execute("UPDATE replies SET reply = replace(reply, 'answer 2', 'answer 3') WHERE reply LIKE '%answer 2%'")
    base.close()
    key = request(2).key()
    with Journal(tmp_path / "j") as journal:
        with pytest.warns(UserWarning, match=key):
            assert journal.get(key) is None
        assert journal.damaged == [key]
        other = journal.get(request(3).key())
        assert other is not None and other.text.startswith("answer 3 ")


@pytest.mark.parametrize("flips", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_no_flipped_byte_brings_a_wrong_answer_or_a_crash(tmp_path: Path, flips: int) -> None:
    fill(tmp_path / "j", 40)
    whole = (tmp_path / "j").read_bytes()
    truth = {request(i).key(): f"answer {i} " + "x" * 300 for i in range(40)}
    r, told = random.Random(1), 0
    for n in range(flips):
        place = r.randrange(len(whole)) if n % 8 else r.randrange(4200)
        broken = bytearray(whole)
        broken[place] ^= 1 << r.randrange(8)
        path = tmp_path / f"flip-{n}"
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with Journal(path) as journal:
                    found = journal.get_many(truth)
                    assert all(truth[key] == kept.text for key, kept in found.items())
                    told += len(journal.damaged)
            except (UserError, Stopped):
                told += 1
        for file in tmp_path.glob(f"flip-{n}*"):
            file.unlink()
    assert told > flips / 8, "many flips hit an answer and are told"


def test_a_damaged_journal_is_told_and_recovered_but_for_the_damaged_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j"
    fill(path, 200)
    data = bytearray(path.read_bytes())
    for page in (6, 11):
        data[page * 4096 : page * 4096 + 2000] = os.urandom(2000)
    path.write_bytes(data)
    assert run(["journal", "check", str(path)]) == 2
    assert "mind journal recover" in capsys.readouterr().err
    assert run(["journal", "recover", str(path)]) == 0
    assert "answers saved" in capsys.readouterr().out
    assert run(["journal", "check", str(path), "--json"]) == 0
    with Journal(path) as journal:
        found = journal.get_many(request(i).key() for i in range(200))
        assert 150 <= len(found) < 200 and journal.totals().requests == 200
        assert all(found[k].text.startswith(f"answer {i} ") for i in range(200) if (k := request(i).key()) in found)
    assert (tmp_path / "j.damaged-1").read_bytes()[6 * 4096 :][:2000] == data[6 * 4096 :][:2000]


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("These are my notes. " * 300)
    with pytest.raises(UserError, match="damaged"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_text().startswith("These are my notes.")
    with pytest.raises(UserError, match="There is no journal"):
        recover(tmp_path / "k")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "j", 1)
    with sqlite3.connect(tmp_path / "j") as base:
        base.execute("UPDATE format SET version = 2")
    base.close()
    with pytest.raises(UserError, match="format 2"):
        Journal(tmp_path / "j")
    assert sorted(os.listdir(tmp_path)) == ["j"], "nothing is left beside what was not opened"


def test_what_is_in_flight_and_at_a_service_outlives_a_recovery(tmp_path: Path) -> None:
    fill(tmp_path / "j", 3)
    batch, attempt = ("token", "e", "batch_1", 5), (7, "e", 11, 22, 33)
    with sqlite3.connect(tmp_path / "j") as base:
        base.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", batch)
        base.execute("INSERT INTO attempts VALUES (?, ?, ?, ?, ?)", attempt)
    base.close()
    assert recover(tmp_path / "j").saved == 3
    with Journal(tmp_path / "j") as journal:
        assert journal.read("SELECT * FROM batches") == [batch]
        assert journal.totals() == Totals(3, 9 + 11, 12 + 22, 0, 15 + 33, 1), "charged, as after any kill"


def test_journals_are_held_while_one_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "whole", 2)
    fill(tmp_path / "part", 3)
    held: list[list[str]] = []
    plain = sqlite3.connect

    def connect(*given: Any, **named: Any) -> Any:
        held.append(sorted(path.name for path in tmp_path.glob("*.lock")))
        return plain(*given, **named)

    monkeypatch.setattr(sqlite3, "connect", connect)
    absorb(tmp_path / "whole", tmp_path / "part")
    absorb(tmp_path / "whole", tmp_path / "part")
    assert held[-1] == ["part.lock", "whole.lock"]
    with Journal(tmp_path / "whole") as journal:
        assert len(journal) == 3 and journal.totals().requests == 5


# Disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"mount is not possible here: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_booking_keeps_what_is_in_flight_and_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "j"
    kept: list[int] = []
    journal = Journal(path)
    in_flight = [journal.book("e", Totals())[0] for _ in range(16)]
    (small_disk / "filler").write_bytes(b"x" * 1_000_000)
    with pytest.raises(Stopped, match="will not be asked again"):
        for i in range(5000):
            attempt, booked = journal.book("e", Totals())
            booked.result()
            journal.settle(attempt, "e", Totals(0, 1, 1), request(i).key(), reply("x" * 2000)).result()
            kept.append(i)
    assert 5 < len(kept) < 5000
    for n, attempt in enumerate(in_flight):
        journal.settle(attempt, "e", Totals(0, 1, 1), request(10_000 + n).key(), reply("y" * 2000)).result()
    journal.close()
    (small_disk / "filler").unlink()
    with Journal(path) as again:
        assert len(again.get_many(request(i).key() for i in [*kept, *range(10_000, 10_016)])) == len(kept) + 16


def test_a_read_only_folder_is_refused_in_a_sentence(small_disk: Path) -> None:
    fill(small_disk / "j", 3)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot be opened for writing .*Read-only"):
        Journal(small_disk / "j")


def test_a_folder_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened for writing"):
        Journal(tmp_path / "none" / "j")
