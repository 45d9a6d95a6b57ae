"""This language, through its public Python interface only.

In: the arrays of a work.  Out: the work made ready, by `m.function`, `m.step` or `m.train` of the script shown here.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from dsl.bench.data import Given, array_numbers, network_numbers, step_numbers
from dsl.bench.work import Absent, Numbers, Prepared

SCRIPTS: dict[str, str] = {}

SCRIPTS["tutorial"] = """
scalar X, Y
shared w = 0.0, b = 0.0
model Y_bar = X * w + b
cost C = mean(sqr(Y_bar - Y))
grad gw, gb = C wrt w, b
update w <- w - 0.01 * gw
update b <- b - 0.01 * gb
"""

SCRIPTS["linreg"] = """
precision float32
vector x[n], y[n]
shared w = 0.1, b = 0.2
cost C = mean(sqr(x * w + b - y))
grad gw, gb = C wrt w, b
update w <- w - 0.01 * gw
update b <- b - 0.01 * gb
"""

SCRIPTS["logistic"] = """
precision float32
vector x[n], y[n]
shared w = 0.1, b = 0.2
cost C = mean(bce_logits(x * w + b, y))
grad gw, gb = C wrt w, b
"""

SCRIPTS["chain"] = """
precision float32
vector x[n]
let y = tanh(x) * exp(-x * x) + log1p(x * x)
"""

SCRIPTS["axpb"] = """
precision float32
scalar a
vector x[n]
let y = a * x + x * x
"""

SCRIPTS["logreg100"] = """
precision float32
dim d = 100
matrix X[n, d]
vector y[n]
shared w[d] = 0.0, b = 0.0
cost C = mean(bce_logits(X @ w + b, y))
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
"""

NETWORK = """
precision float32
dim d = {inputs}, h = {hidden}, k = 10
matrix X[n, d]
int vector y[n]
shared W1[d, h] = 0.0, b1[h] = 0.0, W2[h, k] = 0.0, b2[k] = 0.0
let hidden = tanh(X @ W1 + b1)
let z = hidden @ W2 + b2
cost C = mean(xent(z, y))
grad gW1, gb1, gW2, gb2 = C wrt W1, b1, W2, b2
update W1 <- W1 - {rate} * gW1
update b1 <- b1 - {rate} * gb1
update W2 <- W2 - {rate} * gW2
update b2 <- b2 - {rate} * gb2
"""
SCRIPTS["mlp"] = NETWORK.format(inputs=64, hidden=64, rate=0.1)
SCRIPTS["wide"] = NETWORK.format(inputs=784, hidden=512, rate=0.01)
SCRIPTS["wide-gpu"] = NETWORK.format(inputs=784, hidden=4096, rate=0.01)
SCRIPTS |= {f"{name}-gpu": SCRIPTS[name] for name in ("axpb", "chain", "linreg")}

SCRIPTS["scan"] = """
scalar r
dim n = 100
let y = fold(x = 0.5 for t in arange(n): r * x * (1 - x))
"""
SCRIPTS["scan-grad"] = SCRIPTS["scan"] + "grad g = y wrt r\n"

SETTINGS: dict[str, Any] = {"device": "cpu"}


def versions() -> dict[str, str]:
    import llvmlite
    import numpy

    import dsl
    return {"lr": dsl.__version__, "llvmlite": llvmlite.__version__, "numpy": numpy.__version__}


def room() -> int:
    from dsl.bench.peers import cupy
    return cupy.room()


def configure(device: str, threads: int) -> None:
    """The libraries that a native build calls are loaded first, so that a first run is compiling and not importing."""
    SETTINGS["device"] = device
    if device == "cuda":
        from dsl.bench.peers import cupy
        cupy.configure(device, threads)
    if device != "numpy":
        import_module("llvmlite.binding")
        import_module("scipy.linalg.cython_blas")


def model(entry: str, settings: Mapping[str, Any] | None = None) -> Any:
    import dsl
    try:
        return dsl.compile(SCRIPTS[entry], device=SETTINGS["device"], set=settings or {})
    except dsl.LrError as problem:
        raise later(problem) from None


def later(problem: Any) -> Exception:
    """What this version has not built yet is absent, not broken; so is a device."""
    codes = {d.code for d in problem.diagnostics}
    return Absent("not in this version") if "E0801" in codes else Absent("no GPU") if "E0802" in codes else problem


def held(array: Any) -> Any:
    """An array where the device wants it."""
    if SETTINGS["device"] != "cuda":
        return array
    import cupy
    return cupy.asarray(array)


def on_host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else array


def prepared(run: Callable[[], Any], numbers: Callable[[Any], Numbers], reset: Callable[[], None] | None = None,
             inside: Callable[[Any], float] | None = None) -> Prepared:
    """Timed by the device's clock where it is a GPU."""
    if SETTINGS["device"] != "cuda":
        return Prepared(run, numbers, reset, inside)
    from dsl.bench.peers import cupy
    return Prepared(run, numbers, reset, inside, clock=cupy.clock, rest=cupy.rest)


# ---------------------------------------------------------------- full batches
def step(entry: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        function = model(entry).function(["x", "y"], ["C", "gw", "gb"])
        return prepared(lambda: function(given["x"], given["y"]), step_numbers)
    return make


def chain(given: Given) -> Prepared:
    function = model("chain").function(["x"], "y")
    return prepared(lambda: function(given["x"]), array_numbers)


def axpb(given: Given) -> Prepared:
    function = model("axpb").function(["a", "x"], "y")
    return prepared(lambda: function(given["a"], given["x"]), array_numbers)


def long_elements(entry: str, names: list[str]) -> Callable[[Given], Prepared]:
    """An array made on the device, and one that the call makes there."""
    def make(given: Given) -> Prepared:
        from dsl.bench.peers import cupy
        function = model(entry).function(names, "y")
        arrays = [cupy.long(given[n], given["size"]) if n == "x" else given[n] for n in names]
        return prepared(lambda: function(*arrays), cupy.element_numbers)
    return make


def long_step(given: Given) -> Prepared:
    from dsl.bench.peers import cupy
    function = model("linreg-gpu").function(["x", "y"], ["C", "gw", "gb"])
    x, y = (cupy.long(given[n], given["size"]) for n in ("x", "y"))
    return prepared(lambda: function(x, y), step_numbers)


def memory(given: Given) -> Prepared:
    """Steps that move the state; the numbers are those of the first one, read off the state."""
    m = model("linreg")

    def reset() -> None:
        m["w"], m["b"] = given["w"], given["b"]

    def numbers(cost: Any) -> Numbers:
        return step_numbers((cost, *((float(given[n]) - float(m[n])) / 0.01 for n in ("w", "b"))))
    return Prepared(lambda: m.step(x=given["x"], y=given["y"]), numbers, reset)


def logreg100(given: Given) -> Prepared:
    m = model("logreg100")
    zero = given["X"][0] * 0
    X, y = held(given["X"]), held(given["y"])

    def reset() -> None:
        m["w"], m["b"] = zero, 0.0
    return prepared(lambda: m.step(X=X, y=y), lambda cost: {"cost": cost, "w": m["w"], "b": m["b"]}, reset)


# ---------------------------------------------------------------- training loops
def seconds_inside(report: Any) -> float:
    return 1e3 * float(report.seconds)


def tutorial(given: Given) -> Prepared:
    m = model("tutorial")
    X, Y, epochs = held(given["X"]), held(given["Y"]), given["epochs"]

    def reset() -> None:
        m["w"] = m["b"] = 0.0
    return prepared(lambda: m.train(epochs=epochs, X=X, Y=Y), lambda report: {"w": m["w"], "b": m["b"], "cost": report.cost},
                    reset, seconds_inside)


def network(entry: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        m = model(entry, {"d": given["W1"].shape[0], "h": given["W1"].shape[1]})
        X, y, epochs, batch = held(given["X"]), held(given["y"]), given["epochs"], given["batch"]

        def reset() -> None:
            for name in ("W1", "b1", "W2", "b2"):
                m[name] = given[name]
        return prepared(lambda: m.train(epochs=epochs, batch=batch, X=X, y=y),
                        lambda report: network_numbers(given, *(on_host(m[n]) for n in ("W1", "b1", "W2", "b2"))), reset, seconds_inside)
    return make


# ---------------------------------------------------------------- loops in expressions
def scan(entry: str, outputs: list[str]) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        m = model(entry, {"n": given["size"]})
        function = m.function(["r"], outputs)
        return Prepared(lambda: function(given["r"]), lambda values: dict(zip(("last", "derivative"), map(float, values))))
    return make


FORMS: dict[str, Callable[[Given], Prepared]] = {
    "tutorial": tutorial, "linreg": step("linreg"), "logistic": step("logistic"), "chain": chain, "axpb": axpb,
    "logreg100": logreg100, "mlp": network("mlp"), "wide": network("wide"), "memory": memory,
    "scan": scan("scan", ["y"]), "scan-grad": scan("scan-grad", ["y", "g"]),
    "axpb-gpu": long_elements("axpb-gpu", ["a", "x"]), "chain-gpu": long_elements("chain-gpu", ["x"]), "linreg-gpu": long_step,
    "wide-gpu": network("wide-gpu"),
}  # fmt: skip
TABLE = {"lr": FORMS, "lr-cold": FORMS}
