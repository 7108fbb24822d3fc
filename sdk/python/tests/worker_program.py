"""A worker in a process of its own, for test_process.py. What it does is said by its argument."""

import logging
import os
import sys
import threading
import time
from typing import Any, Dict

from edri_sdk import Context, SyncContext, Worker

worker = Worker()
what = sys.argv[1] if len(sys.argv) > 1 else ""


@worker.request("echo")
async def echo(event: Dict[str, Any], cx: Context) -> Any:
    return event


@worker.request("ends")
def ends(event: Dict[str, Any], cx: SyncContext) -> Any:
    os._exit(7)


@worker.request("exits")
def exits(event: Dict[str, Any], cx: SyncContext) -> Any:
    sys.exit(9)


@worker.request("hangs")
def hangs(event: Dict[str, Any], cx: SyncContext) -> Any:
    threading.Event().wait()


@worker.request("hangs.loop")
async def hangs_loop(event: Dict[str, Any], cx: Context) -> Any:
    time.sleep(3600)


@worker.request("says")
def says(event: Dict[str, Any], cx: SyncContext) -> Any:
    print("printed")
    logging.getLogger("lib").info("logged")
    logging.debug("not wanted")
    return [os.getpid(), os.read(0, 10)]


@worker.started
def start(cx: SyncContext) -> None:
    if what == "start":
        raise ValueError("no disk")


@worker.stopping
def stop(cx: SyncContext) -> None:
    cx.publish("stopped", {})


if __name__ == "__main__":
    worker.run(logging.DEBUG if what == "debug" else logging.INFO)
