"""MiniLM in int8 and in float16 against float32: a check's latency, and the size of its weights."""

from layerguard.runtime import Guard
from tests.bench.harness import measure, report
from tests.bench.minilm import CACHE, exported
from tests.random_detectors import freeze, make_params

_LAYERS, _WIDTH = 6, 384
_WORDS = (8, 32, 128, 300)
_DTYPES = ("float32", "float16", "int8")


def main() -> None:
    params = {"lcf": make_params(_LAYERS, _WIDTH)["lcf"]}
    bundles = {
        dtype: freeze(exported("--dtype", dtype), CACHE / f"lcf-{dtype}", params)
        for dtype in _DTYPES
    }
    guards = {dtype: Guard.load(bundle) for dtype, bundle in bundles.items()}
    rows = []
    for words in _WORDS:
        text = " ".join(["garden"] * words)
        calls = {
            dtype: lambda guard=guard, text=text: guard.check(text)
            for dtype, guard in guards.items()
        }
        seconds = measure(calls, rounds=31)
        rows.append(
            {
                "what": f"check of {words} words, ms",
                **{dtype: 1e3 * seconds[dtype] for dtype in _DTYPES},
                "float32 / int8": seconds["float32"] / seconds["int8"],
            }
        )
    sizes = {
        dtype: sum(path.stat().st_size for path in bundle.iterdir()) / 2**20
        for dtype, bundle in bundles.items()
    }
    rows.append(
        {"what": "bundle, MiB", **sizes, "float32 / int8": sizes["float32"] / sizes["int8"]}
    )
    report("int8", "MiniLM, LCF: check in float32, float16 and int8", rows)


if __name__ == "__main__":
    main()
