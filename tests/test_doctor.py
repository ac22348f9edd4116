"""The doctor: what it says of readings, and that it ends well whatever is missing."""

import os
import subprocess
import sys

import pytest

from rtgan import doctor
from rtgan.doctor import Finding, NoAnswer

GOOD = {"p50": 1.0, "p99.9": 2.0, "max": 3.0}


def paced(missed=0, alone=0):
    return {"load": GOOD, "load_both": GOOD, "late_ms": GOOD, "blocks": 100, "missed": missed, "missed_alone": alone}


def measured(**changes):
    blocks = {str(b): paced() for b in doctor.BLOCKS}
    return {"preset": "clean", "refused": [], "paced": blocks, "real_time": True, **changes}


def test_a_missing_package_prevents_and_missing_midi_does_not():
    known = {"numba": None, "python-rtmidi": None, "torch": None}
    found = doctor.installed(lambda package: known.get(package, "1.0"))
    by_text = {f.text.partition(" ")[0]: f for f in found}
    assert by_text["numba"].prevents and by_text["numba"].change == "pip install numba"
    assert not by_text["python-rtmidi"].prevents and "no MIDI" in by_text["python-rtmidi"].text
    assert not by_text["torch"].prevents and not by_text["torch"].change


@pytest.mark.parametrize("limit, text", [(95, "60; limit 95"), (0, "by privilege; limit 0"), (None, "limit unknown")])
def test_priority_that_is_granted(limit, text):
    finding = doctor.priority(limit, True)
    assert not finding.change and text in finding.text


def test_priority_that_is_refused_comes_with_the_line_to_write():
    finding = doctor.priority(0, False)
    assert "@audio - rtprio 95" in finding.change and "usermod -aG audio" in finding.change
    assert not finding.prevents
    assert not doctor.priority(None, False, linux=False).change


def test_memory_is_compared_with_the_need():
    assert "10.0 MB are needed" in doctor.memory(8e6, {"arena_bytes": 10e6, "locked": True}).text
    refused = doctor.memory(8e6, {"arena_bytes": 10e6, "locked": False})
    assert "limit 8.0 MB: refused" in refused.text and "@audio - memlock unlimited" in refused.change
    assert "limit none" in doctor.memory(float("inf"), {"arena_bytes": 10e6, "locked": True}).text
    assert "not known" in doctor.memory(8e6, {"problem": "x"}).text


def test_governor():
    assert not doctor.governor({"performance": 4})[0].change
    slow = doctor.governor({"performance": 3, "powersave": 1})[0]
    assert "powersave on 1 cores" in slow.text and "cpupower frequency-set -g performance" in slow.change
    assert not doctor.governor({})[0].change


def test_governors_are_read(tmp_path, monkeypatch):
    for core, name in enumerate(["powersave", "performance", "powersave"]):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{name}\n")
    (tmp_path / "cpu3" / "cpufreq" / "scaling_governor").mkdir(parents=True)
    monkeypatch.setattr(doctor, "_GOVERNORS", tmp_path)
    assert doctor._governors() == {"powersave": 2, "performance": 1}


def test_disk():
    assert doctor.disk(10**8).change and "4 min" in doctor.disk(10**8).text
    assert not doctor.disk(10**11).change and "72 h" in doctor.disk(10**11).text


def test_audio_backends():
    broken = doctor.audio_findings({"problem": "PortAudio library not found"})
    assert broken[0].prevents and "libportaudio2" in broken[0].change
    empty = doctor.audio_findings({"version": "V", "apis": [{"name": "ALSA", "inputs": 0, "outputs": 2}]})
    assert not any(f.prevents for f in empty)
    assert "no audio input device" in empty[-1].text and "built-in recording" in empty[-1].text
    jack = [{"name": "JACK Audio Connection Kit", "inputs": 1, "outputs": 1}]
    full = doctor.audio_findings({"version": "V", "apis": jack})
    assert any(f.text == "a JACK server answers" for f in full) and not any(f.change for f in full)


def test_midi_backends_are_tried_one_by_one():
    answers = {
        "probe_midi()": [["alsa", "ALSA"], ["jack", "Jack"], ["core", "CoreMidi"], ["dummy", "Dummy"]],
        "probe_midi_ports('alsa')": {"problem": "no sequencer"},
        "probe_midi_ports('core')": {"inputs": ["keys"], "outputs": []},
    }

    def ask(expression):
        if expression not in answers:
            raise NoAnswer("it crashed (SIGSEGV)")
        return answers[expression]

    assert [f.text for f in doctor.midi(ask)] == [
        "ALSA does not answer: no sequencer",
        "Jack does not answer: it crashed (SIGSEGV)",
        "CoreMidi: 1 input and 0 output ports",
    ]
    del answers["probe_midi_ports('core')"]
    assert doctor.midi(ask)[-1].change
    answers["probe_midi()"] = []
    assert "without a backend" in doctor.midi(ask)[0].text
    del answers["probe_midi()"]
    assert "no MIDI" in doctor.midi(ask)[0].text


def test_timing_that_holds():
    found = doctor.timing_findings(measured())
    assert len(found) == 4 and not any(f.change for f in found)
    assert all("holds, also while a preset changes" in f.text for f in found[1:])


def test_timing_that_does_not_hold_names_the_block_that_does():
    blocks = {"64": paced(7, 0), "128": paced(3, 3), "256": paced()}
    found = doctor.timing_findings(measured(paced=blocks, real_time=False, refused=["clean: no model"]))
    small, middle, large = found[-3:]
    assert "7 of 100 blocks" in small.text and small.change.startswith("use --block 256")
    assert "held up" in middle.text and "close other programs" in middle.change
    assert "real-time priority" in middle.change
    assert not large.change
    assert found[1].text == "not with clean: no model"


def test_timing_on_a_device():
    device = {"input": "mic", "output": "out", "api": "ALSA", "block": 99.7, "load": GOOD, "callbacks": 9}
    device["xruns"] = 0
    assert not doctor.timing_findings(measured(device=device))[1].change
    assert "--block" in doctor.timing_findings(measured(device={**device, "xruns": 2}))[1].change
    refused = doctor.timing_findings(measured(device_problem="it is busy"))[1]
    assert refused.prevents and "it is busy" in refused.text
    assert doctor.timing_findings({"problem": "no preset"})[0].prevents


def test_verdict():
    assert doctor.verdict([Finding("a"), Finding("b")]) == "Live audio works here."
    assert doctor.verdict([Finding("a", "b")]) == "Live audio works here; 1 thing to change, see above."
    assert doctor.verdict([Finding("a", "b", True)]).startswith("Live audio does not work here")


def test_a_probe_that_crashes_hangs_or_fails_is_a_sentence():
    with pytest.raises(NoAnswer, match=r"crashed \(SIGABRT\)"):
        doctor._ask("os.abort()")
    with pytest.raises(NoAnswer, match="no answer within 1 s"):
        doctor._ask("time.sleep(60)", 1.0)
    with pytest.raises(NoAnswer, match="ZeroDivisionError"):
        doctor._ask("sys.version_info[0] // 0")
    assert doctor._ask("cpu_name()") == doctor.cpu_name()


def test_here(cli):
    done = cli("doctor", "--seconds", "0.3", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for group in ("Installed", "Compiled kernels", "Processor", "Audio", "MIDI", "Real-time priority", "Recordings",
                  "Timing", "Locked memory"):  # fmt: skip
        assert f"\n{group}" in done.stdout
    assert "could not be examined" not in done.stdout
    assert "blocks of 64" in done.stdout and "MB are needed" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Live audio works here")


def test_without_portaudio_and_midi(cli, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    (tmp_path / "rtmidi.py").write_text("raise ImportError('libasound.so.2: cannot open')\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = cli("doctor", "--seconds", "0.3", timeout=300, env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "NO  PortAudio does not work" in done.stdout and "apt-get install libportaudio2" in done.stdout
    assert "no MIDI: ImportError" in done.stdout
    assert "Live audio does not work here" in done.stdout


def test_without_anything_that_plays(cli, tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('no numba today')\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = cli("doctor", "--seconds", "0.3", timeout=300, env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "nothing can be played: ImportError: no numba today" in done.stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (["--seconds", "-1"], "--seconds must be 0 or from"),
        (["--block", "64"], "--block and --rate are for a model"),
        (["voice.ts", "--seconds", "1"], "--seconds is for the report on the machine"),
        (["voice.ts", "--json"], "--json is for the report on the machine"),
    ],
)
def test_options_that_would_do_nothing_are_refused(cli, words, said):
    done = cli("doctor", *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and said in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux scheduler")
def test_trying_for_real_time_leaves_this_thread_alone():
    before = os.sched_getscheduler(0)
    doctor.real_time_granted()
    assert os.sched_getscheduler(0) == before


@pytest.mark.jack
@pytest.mark.slow
def test_on_a_server(jack):
    server = jack(256)
    done = subprocess.run(
        [sys.executable, "-m", "rtgan", "doctor", "--seconds", "1"],
        env=server.env, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a JACK server answers" in done.stdout
    assert "system to system [JACK Audio Connection Kit], blocks of 256" in done.stdout
