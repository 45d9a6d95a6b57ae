"""PyTorch, eager (`torch`) and through `torch.compile` (`torch-compile`).

In: the arrays of a work.  Out: the work made ready, gradients by `backward`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, network_numbers, places, step_numbers, whole
from dsl.bench.work import Absent, Numbers, Prepared

PLACE = {"device": "cpu", "threads": 1}


def versions() -> dict[str, str]:
    import torch
    return {"torch": torch.__version__}


def configure(device: str, threads: int) -> None:
    import torch
    PLACE.update(device="cuda" if device == "cuda" else "cpu", threads=threads)
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise Absent("PyTorch finds no GPU")


def compiled_anew(form: Callable[..., Any]) -> Callable[..., Any]:
    """For this size alone: after a second size torch.compile would take sizes as variables, and be slower for it."""
    import torch
    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(form, dynamic=False)
    return compiled


def tensor(array: Any, wanted: bool = False) -> Any:
    """An array where the work is done; with a gradient if wanted."""
    import torch
    placed = torch.as_tensor(array if torch.is_tensor(array) else np.asarray(array)).to(PLACE["device"])
    return placed.clone().requires_grad_() if wanted else placed


def prepared(run: Callable[[], Any], numbers: Callable[[Any], Numbers], reset: Callable[[], None] | None = None) -> Prepared:
    """Timed by events where it runs on a GPU."""
    return Prepared(run, numbers, reset) if PLACE["device"] != "cuda" else Prepared(run, numbers, reset, clock=clock, rest=rest)


def clock() -> Callable[[], float]:
    import torch
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()

    def stop() -> float:
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))
    return stop


def rest() -> None:
    import torch
    torch.cuda.empty_cache()


def host(value: Any) -> Any:
    return value.detach().cpu().numpy()


# ---------------------------------------------------------------- full batches
def step(name: str, compiled: bool) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        from torch.nn.functional import binary_cross_entropy_with_logits
        x, y, w, b = tensor(given["x"]), tensor(given["y"]), tensor(given["w"], True), tensor(given["b"], True)
        forms: dict[str, Callable[..., Any]] = {
            "linreg": lambda x, y, w, b: ((x * w + b - y) ** 2).mean(),
            "logistic": lambda x, y, w, b: binary_cross_entropy_with_logits(x * w + b, y)}
        cost = compiled_anew(forms[name]) if compiled else forms[name]

        def run() -> Any:
            w.grad = b.grad = None
            value = cost(x, y, w, b)
            value.backward()
            return value.detach(), w.grad, b.grad
        return prepared(run, lambda result: step_numbers(host(v) for v in result))
    return make


def elements(name: str, compiled: bool) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import torch
        a, x = tensor(given["a"]), tensor(given["x"])
        forms: dict[str, Callable[..., Any]] = {
            "chain": lambda a, x: torch.tanh(x) * torch.exp(-x * x) + torch.log1p(x * x),
            "axpb": lambda a, x: a * x + x * x}
        form = compiled_anew(forms[name]) if compiled else forms[name]
        return prepared(lambda: form(a, x), lambda y: array_numbers(host(y)))
    return make


def long(block: Any, size: int) -> Any:
    """The block over and over, on the device."""
    import torch
    there = tensor(block)
    made = torch.empty(size, dtype=there.dtype, device=there.device)

    def fill(part: slice, count: int) -> None:
        made[part] = there[:count]
    whole(block, size, fill)
    return made


def long_step(compiled: bool) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        return step("linreg", compiled)({**given, **{name: long(given[name], given["size"]) for name in ("x", "y")}})
    return make


def long_elements(name: str, compiled: bool) -> Callable[[Given], Prepared]:
    def numbers(y: Any) -> Numbers:
        import torch
        return {"sum": float(y.sum(dtype=torch.float64)), "elements": host(y[torch.as_tensor(places(len(y)), device=y.device)])}

    def make(given: Given) -> Prepared:
        made = elements(name, compiled)({**given, "x": long(given["x"], given["size"])})
        return prepared(made.run, numbers)
    return make


def logreg100(compiled: bool) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits
        X, y, rate = tensor(given["X"]), tensor(given["y"]), float(given["rate"])
        w, b = tensor(np.zeros(X.shape[1], np.float32), True), tensor(np.float32(0), True)
        form: Callable[..., Any] = lambda X, y, w, b: binary_cross_entropy_with_logits(X @ w + b, y)
        cost = compiled_anew(form) if compiled else form

        def reset() -> None:
            with torch.no_grad():
                w.zero_(), b.zero_()

        def run() -> Any:
            w.grad = b.grad = None
            value = cost(X, y, w, b)
            value.backward()
            with torch.no_grad():
                w.sub_(w.grad, alpha=rate), b.sub_(b.grad, alpha=rate)
            return value
        return prepared(run, lambda value: {"cost": host(value), "w": host(w).copy(), "b": host(b).copy()}, reset)
    return make


# ---------------------------------------------------------------- training loops
def tutorial(given: Given) -> Prepared:
    """One thread: the fastest for scalars."""
    import torch
    torch.set_num_threads(1)
    X, Y, rate, epochs = tensor(given["X"]), tensor(given["Y"]), given["rate"], given["epochs"]
    w, b = tensor(0.0, True), tensor(0.0, True)

    def reset() -> None:
        with torch.no_grad():
            w.zero_(), b.zero_()

    def run() -> None:
        for _ in range(epochs):
            for x, y in zip(X, Y, strict=True):
                cost = (x * w + b - y) ** 2
                cost.backward()
                with torch.no_grad():
                    w.sub_(w.grad, alpha=rate), b.sub_(b.grad, alpha=rate)
                w.grad = b.grad = None
    return prepared(run, lambda _: {"w": host(w).copy(), "b": host(b).copy()}, reset)


def network(given: Given) -> Prepared:
    import torch
    from torch.nn.functional import cross_entropy
    X, y, batch, epochs = tensor(given["X"]), tensor(given["y"]).long(), given["batch"], given["epochs"]
    names = ("W1", "b1", "W2", "b2")
    W1, b1, W2, b2 = parameters = [tensor(given[n], True) for n in names]
    optimiser = torch.optim.SGD(parameters, lr=float(given["rate"]))

    def reset() -> None:
        with torch.no_grad():
            for parameter, name in zip(parameters, names, strict=True):
                parameter.copy_(tensor(given[name]))

    def run() -> None:
        for _ in range(epochs):
            for start in range(0, len(X), batch):
                optimiser.zero_grad()
                hidden = torch.tanh(X[start:start + batch] @ W1 + b1)
                cross_entropy(hidden @ W2 + b2, y[start:start + batch]).backward()
                optimiser.step()
    return prepared(run, lambda _: network_numbers(given, *(host(p) for p in parameters)), reset)


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "torch": {"tutorial": tutorial, "linreg": step("linreg", False), "memory": step("linreg", False), "logistic": step("logistic", False),
              "chain": elements("chain", False), "axpb": elements("axpb", False), "logreg100": logreg100(False), "mlp": network,
              "wide": network, "axpb-gpu": long_elements("axpb", False), "chain-gpu": long_elements("chain", False),
              "linreg-gpu": long_step(False), "wide-gpu": network},
    "torch-compile": {"linreg": step("linreg", True), "memory": step("linreg", True), "logistic": step("logistic", True),
                      "chain": elements("chain", True), "axpb": elements("axpb", True), "logreg100": logreg100(True),
                      "axpb-gpu": long_elements("axpb", True), "chain-gpu": long_elements("chain", True), "linreg-gpu": long_step(True)},
}
