"""The Python face of the emulator, and its build."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from npu_backend import runtime, toolchain
from npu_backend.encoding import encode
from npu_backend.errors import EmulatorError, InputError, OptionError, ProgramError, ToolchainError
from npu_backend.program import pack
from npu_backend.runtime import Emulator, Library, burst_bytes, compute_ns
from tests.emulator.assembler import LOAD, STORE, VECTOR, Assembly, instruction

ASSEMBLY = (
    Assembly().input("image", 0, (2, 8)).input("bias", 64, (4,), "float32").output("y", 128, (16,))
    .load(0, 0, 0, 16).sync(0, (0, LOAD), (0, STORE)).store(0, 128, 0, 16).fill(1, 0, 100)
)  # fmt: skip
IMAGE, BIAS = np.arange(16, dtype=np.uint8).reshape(2, 8), np.zeros(4, np.float32)


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(ASSEMBLY.build())


def test_inputs_by_name_or_in_order(emulator: Emulator) -> None:
    for inputs in ({"bias": BIAS, "image": IMAGE}, [IMAGE, BIAS], (IMAGE[:, ::-1].copy()[:, ::-1], BIAS)):
        np.testing.assert_array_equal(emulator.run(inputs)["y"], IMAGE.ravel())
    assert [port.name for port in emulator.inputs] == ["image", "bias"]
    assert [(port.name, port.dtype, port.shape) for port in emulator.outputs] == [("y", np.uint8, (16,))]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": IMAGE}, "inputs are named 'image'; the program expects 'image', 'bias'"),
        ({"image": IMAGE, "bias": BIAS, "more": BIAS}, "the program expects 'image', 'bias'"),
        ([IMAGE], "1 inputs given; the program expects 2: 'image', 'bias'"),
        ([IMAGE.T, BIAS], r"input 'image' is uint8\[8, 2\]; the program expects uint8\[2, 8\]"),
        ([IMAGE, BIAS.astype(np.float64)], r"input 'bias' is float64\[4\]; the program expects float32\[4\]"),
    ],
)
def test_inputs_that_do_not_fit(emulator: Emulator, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        emulator.run(inputs)


def test_options_that_do_not_exist(emulator: Emulator) -> None:
    with pytest.raises(OptionError, match=r"'fast' do not exist: use one of auto, portable, avx2, avx512"):
        emulator.run([IMAGE, BIAS], kernels="fast")
    for threads in (0, -1, 1025):
        with pytest.raises(OptionError, match="use 1 to 1024"):
            emulator.run([IMAGE, BIAS], threads=threads)


def test_closed(emulator: Emulator) -> None:
    emulator.close()
    emulator.close()
    with pytest.raises(EmulatorError, match="closed"):
        emulator.run([IMAGE, BIAS])
    with pytest.raises(EmulatorError, match="closed"):
        emulator.time()


def test_timing(emulator: Emulator) -> None:
    timing = emulator.time(spans=True)
    assert timing.total_ns > 0
    assert timing.energy_pj > 0
    assert len(timing.cores) == 2
    assert timing.cores[0].dram_bytes == 32
    assert timing.cores[0].dram_read_bytes == 16
    assert timing.cores[1].vector_busy_ns > 0
    assert timing.spans is not None
    assert timing.spans.shape == (emulator.instruction_count, 2)
    assert timing.spans.max() == timing.total_ns
    assert emulator.time().spans is None
    assert emulator.time().total_ns == timing.total_ns


def test_cost_functions() -> None:
    program = ASSEMBLY.program()
    core, machine = pack("core", program.cores[0]), pack("machine", program.machine)
    fill = instruction("FILL", element_bytes=1, counts=(1, 1, 1, 320), output_strides=(0, 0, 0, 1))
    assert compute_ns(core, encode(fill)) > 0
    assert burst_bytes(machine, 3, 65) == 3 * 128
    with pytest.raises(InputError):
        compute_ns(core, encode(instruction("WAIT")))
    with pytest.raises(InputError):
        compute_ns(core, b"")


def test_a_library_by_path(tmp_path: Path) -> None:
    with Emulator(ASSEMBLY.build(), library=Library.from_path(runtime.default_library().path)) as emulator:
        np.testing.assert_array_equal(emulator.run([IMAGE, BIAS])["y"], IMAGE.ravel())
    with pytest.raises(EmulatorError, match="cannot be loaded"):
        Library.from_path(tmp_path / "missing.so")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory of its own, and sources small enough to build at once."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "one.c").write_text("int npu_hidden(void);\nint npu_hidden(void) { return 42; }\n")
    (sources / "two.c").write_text(
        "int npu_hidden(void);\n"
        'int npu_answer(void);\n__attribute__((visibility("default"))) int npu_answer(void) { return npu_hidden(); }\n'
    )
    monkeypatch.setattr(toolchain, "_EMULATOR", sources)
    monkeypatch.setenv(toolchain.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(toolchain.SANITIZE_VARIABLE, raising=False)
    toolchain._cached.cache_clear()
    yield sources
    toolchain._cached.cache_clear()


def test_the_key_follows_the_sources(empty_cache: Path) -> None:
    first = toolchain.emulator_library()
    assert toolchain.emulator_library() == first
    (empty_cache / "one.h").write_text("/* new */\n")
    toolchain._cached.cache_clear()
    second = toolchain.emulator_library()
    assert second != first
    assert first.exists()
    assert {path.name for path in second.parent.iterdir()} == {second.name, toolchain._OBJECT_NAME}


def test_a_shipped_library_is_preferred(empty_cache: Path) -> None:
    shipped = empty_cache / toolchain._LIBRARY_NAME
    shipped.write_bytes(b"")
    assert toolchain.emulator_library() == shipped
    assert toolchain.emulator_library(sanitize=True) != shipped


def test_one_object_that_links(empty_cache: Path, tmp_path: Path) -> None:
    made, linked = toolchain.emulator_object(), tmp_path / "linked.so"
    subprocess.run([*toolchain.find_compiler(), "-shared", "-o", str(linked), str(made)], check=True)
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(linked)], capture_output=True, text=True, check=True
    ).stdout
    assert "npu_answer" in symbols
    assert "npu_hidden" not in symbols


def test_a_compiler_that_fails(empty_cache: Path) -> None:
    (empty_cache / "bad.c").write_text("#error broken on purpose\n")
    with pytest.raises(ToolchainError, match="broken on purpose"):
        toolchain.emulator_library()


def test_no_compiler(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(ToolchainError, match=r"'no-such-compiler' named by CC does not exist: install one"):
        toolchain.emulator_library()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="none of cc, gcc, clang is there: install one"):
        toolchain.emulator_library()


def test_a_cache_that_cannot_be_written(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(toolchain.CACHE_VARIABLE, str(blocked))
    with pytest.raises(ToolchainError, match="NPU_CACHE_DIR"):
        toolchain.emulator_library()


def test_two_processes_build_at_once(empty_cache: Path) -> None:
    code = "import sys, pathlib; from npu_backend import toolchain; toolchain._EMULATOR = pathlib.Path(sys.argv[1]); "
    command = [sys.executable, "-c", code + "print(toolchain.emulator_library())", str(empty_cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    made = {process.communicate()[0].strip() for process in started}
    assert len(made) == 1
    library = Path(made.pop())
    assert {path.name for path in library.parent.iterdir()} == {library.name, toolchain._OBJECT_NAME}


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert runtime.main(["build"]) == 0
    toolchain._cached.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert runtime.main(["build", "--sanitize"]) == 2
    assert "install one" in capsys.readouterr().err
    toolchain._cached.cache_clear()


def test_an_emulator_that_failed_to_open_needs_no_closing() -> None:
    with pytest.raises(ProgramError):
        Emulator(b"nothing")


def test_kernels_agree() -> None:
    program = Assembly().input("x", 0, (64,)).output("y", 64, (64,)).load(0, 0, 0, 64).sync(0, (0, LOAD), (0, VECTOR))
    program.copy(0, 0, 64, 64).sync(1, (0, VECTOR), (0, STORE)).store(0, 64, 64, 64)
    x = np.arange(64, dtype=np.uint8)
    with Emulator(program.build()) as opened:
        for kernels in runtime.KERNELS:
            np.testing.assert_array_equal(opened.run([x], kernels=kernels)["y"], x)


def test_the_module_does_not_load_the_emulator_on_import() -> None:
    code = "import npu_backend.runtime as r; assert r.default_library.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True)
