"""Hold a service, a store of your own, or your own code for a failing disk to txstore's contract.

Needs the extra ``txstore[testing]``; ``docs/testing.md`` has worked examples.  The pytest fixtures
are in ``txstore.testing.plugin`` and need no import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txstore.testing.checking import ContractBrokenError, ask, check_storage
    from txstore.testing.contract import StoreContract
    from txstore.testing.crashing import CrashingStore, Setup
    from txstore.testing.faults import Fault, FaultPlan, SimulatedCrash
    from txstore.testing.faulty import FaultyDisk
    from txstore.testing.fresh import crashing_store, fresh_store
    from txstore.testing.messages import Message, Transfer, cancel, segment
    from txstore.testing.model import Answer, Claims, Refusal, State, step
    from txstore.testing.scratch import scratch_folder
    from txstore.testing.servers import FaultyServers

_WHERE = {
    "checking": ("ContractBrokenError", "ask", "check_storage"),
    "contract": ("StoreContract",),
    "crashing": ("CrashingStore", "Setup"),
    "faults": ("Fault", "FaultPlan", "SimulatedCrash"),
    "faulty": ("FaultyDisk",),
    "fresh": ("crashing_store", "fresh_store"),
    "messages": ("Message", "Transfer", "cancel", "segment"),
    "model": ("Answer", "Claims", "Refusal", "State", "step"),
    "scratch": ("scratch_folder",),
    "servers": ("FaultyServers",),
}

__all__ = [
    "Answer",
    "Claims",
    "ContractBrokenError",
    "CrashingStore",
    "Fault",
    "FaultPlan",
    "FaultyDisk",
    "FaultyServers",
    "Message",
    "Refusal",
    "Setup",
    "SimulatedCrash",
    "State",
    "StoreContract",
    "Transfer",
    "ask",
    "cancel",
    "check_storage",
    "crashing_store",
    "fresh_store",
    "scratch_folder",
    "segment",
    "step",
]


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run, for the fixtures: Hypothesis has to wait.
    for module, names in _WHERE.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
