"""Walks a tool's program through the steps of README.md.

A tool is an object with these methods; each raises where something is not as it should be:
  name()          the tool and its version
  up(), down()    migrate; tables() is the set of the tables that are there
  crud()          create, read, update and delete, and leave AUTHORS authors with BOOKS books each
  nested()        a transaction in a transaction, the inner one rolled back
  plain(n)        read author n and the books, as the tool does by itself
  block(n)        the same in a transaction
  write(n, title) read author n in a transaction, change it, add a book
  code(error)     the SQLSTATE of an exception, or a word for it
"""
import json
import os
import sys
import threading
import time
import traceback
from urllib.parse import unquote, urlsplit

AUTHORS, BOOKS, WORKERS, REQUESTS = 10, 5, 10, 30
PAUSE = 0.005  # a worker's think time while the primary dies, in seconds


def address():
    """The parts of DATABASE_URL, unquoted."""
    u = urlsplit(os.environ["DATABASE_URL"])
    return {"host": u.hostname, "port": u.port, "user": unquote(u.username), "password": unquote(u.password), "database": u.path[1:]}


def report(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def wait():
    """Waits until the driver says to go on."""
    if not sys.stdin.readline():
        sys.exit("the driver is gone")


def check(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, not {want!r}")


def all_at_once(work):
    """Runs work(worker) in WORKERS threads and ends the program when one fails."""
    failures = []

    def guarded(worker):
        try:
            work(worker)
        except BaseException:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=guarded, args=(w,)) for w in range(WORKERS)]
    for t in threads:
        t.start()
    return threads, failures


def joined(threads, failures):
    for t in threads:
        t.join()
    if failures:
        sys.exit(failures[0])


def reading(tool, read, step):
    """Every worker reads; one request in ten writes."""
    def work(worker):
        for i in range(REQUESTS):
            if (i + worker) % 10 == 0:
                tool.write(worker + 1, f"{step} {worker} {i}")
            else:
                read((worker + i) % AUTHORS + 1)
    joined(*all_at_once(work))
    report(step, requests=WORKERS * REQUESTS)


def failover(tool):
    """Works on until every worker has done ten requests behind the driver's word."""
    lock, over, warm = threading.Lock(), threading.Event(), threading.Semaphore(0)
    seen = {"requests": 0, "written": 0, "gave_up": 0, "errors": {}}

    def request(worker, i):
        n = (worker + i) % AUTHORS + 1
        kind = i % 3
        if kind == 0:
            tool.plain(n)
        elif kind == 1:
            tool.block(n)
        else:
            tool.write(n, f"failover {worker} {i}")
        return kind == 2

    def attempt(worker, i):
        for last in (False, True):
            try:
                wrote = request(worker, i)
                with lock:
                    seen["written"] += wrote
                return
            except Exception as error:
                code = tool.code(error)
                print(f"worker {worker}, request {i}: {code} {error!r}", file=sys.stderr)
                with lock:
                    if last:
                        seen["gave_up"] += 1
                    else:
                        seen["errors"][code] = seen["errors"].get(code, 0) + 1

    def work(worker):
        i, more = 0, 10
        while more > 0:
            attempt(worker, i)
            i += 1
            if i == 6:
                warm.release()
            if over.is_set():
                more -= 1
            time.sleep(PAUSE)
        with lock:
            seen["requests"] += i

    threads, failures = all_at_once(work)
    for _ in range(WORKERS):
        warm.acquire()
    report("working")
    wait()
    over.set()
    joined(threads, failures)
    report("failover", **seen)


def main(tool):
    mine = {"authors", "books"}
    report("hello", tool=tool.name())
    wait()
    for migrate, want in (tool.up, mine), (tool.down, set()), (tool.up, mine):
        migrate()
        check("tables", tool.tables() & mine, want)
    report("migrate")
    wait()
    tool.crud()
    report("crud")
    wait()
    tool.nested()
    report("nested")
    steps = {"plain": tool.plain, "block": tool.block}
    while (line := sys.stdin.readline().strip()) in steps:
        reading(tool, steps[line], line)
    failover(tool)
    wait()
    tool.down()
    check("tables", tool.tables() & mine, set())
    report("down")
