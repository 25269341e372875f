from __future__ import annotations

import json

from edgekd.bench.child import fingerprint, processor

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd aes asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def test_x86():
    assert processor(X86) == ("Intel(R) Xeon(R) Platinum 8488C", ["avx", "avx2", "avx512f", "avx512_vnni", "amx_int8"])


def test_arm_has_no_model_name():
    assert processor(ARM) == ("0x41 0xd0b", ["asimd", "asimddp"])


def test_without_cpuinfo_there_is_still_a_name():
    name, isa = processor("")
    assert name
    assert isa == []


def test_fingerprint_is_json_and_names_the_versions():
    facts = json.loads(json.dumps(fingerprint()))
    assert {"cpu", "isa", "cores", "system", "python", "onnxruntime", "load_average"} <= set(facts)
    assert facts["cores"] >= facts["cores_allowed"] >= 1
