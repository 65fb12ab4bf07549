#!/usr/bin/python3
"""attribute.py PROGRAM PROFILE...: instructions per packet by function, of profiles that compare.py has taken. PROGRAM is the
xlvs that was measured; what the compiler has put into other functions is found by its debugging information, and what a
library's function does is the xlvs function's that uses it."""

import collections
import json
import pathlib
import re
import subprocess
import sys

LEAST = 8  # instructions; what has fewer is added up


def resolve(program, addresses):
    """The xlvs function at each address, or the innermost one if there is none."""
    text = "\n".join(f"{address:#x}" for address in addresses)
    out = subprocess.run(["addr2line", "-afiC", "-e", program], input=text, capture_output=True, text=True).stdout
    functions = {}
    for block in re.split(r"^(?=0x)", out, flags=re.M)[1:]:
        address, *lines = block.strip().split("\n")
        names = lines[0::2]
        own = [name for name in names if "xlvs::" in name]
        functions[int(address, 16)] = shorten((own or names)[0])
    return functions


def shorten(name):
    return re.sub(r"::h[0-9a-f]{16}$", "", name)


def split(frame):
    """Address, function and file of a line of perf's."""
    address, rest = frame.split(" ", 1)
    function, _, file = rest.rpartition(" (")
    return int(address, 16), function, file.rstrip(")")


def functions(program, profile):
    """Yields (thread, cause, function, samples)."""
    base = profile["bases"][0] if profile["bases"] else 0
    own = pathlib.Path(program).name
    parsed = [(thread, cause, *split(frame), count) for thread, cause, frame, count in profile["samples"]]
    offsets = {address - base for _, _, address, _, file, _ in parsed if pathlib.Path(file).name == own}
    names = resolve(program, sorted(offsets))
    for thread, cause, address, function, file, count in parsed:
        if pathlib.Path(file).name == own:
            function = names.get(address - base, function)
        yield thread, cause, function, count


def show(program, path):
    profile = json.loads(pathlib.Path(path).read_text())
    print(f"\n{path}")
    by_thread = collections.defaultdict(collections.Counter)
    for thread, cause, function, count in functions(program, profile):
        by_thread[thread][cause, function] += count
    for thread, counts in sorted(by_thread.items()):
        show_thread(thread, profile["cost"][thread], counts)


def show_thread(thread, cost, counts):
    each = cost / counts.total()
    print(f"  {thread}: {cost:,.0f} instructions a packet ({counts.total():,} samples)")
    causes = collections.Counter()
    for (cause, _), count in counts.items():
        causes[cause] += count
    for cause, total in causes.most_common():
        print(f"    {cause}: {total * each:,.0f}")
        rest = 0
        for (other, function), count in counts.most_common():
            if other != cause:
                continue
            if count * each < LEAST:
                rest += count
                continue
            print(f"      {count * each:6,.0f}  {function}")
        if rest:
            print(f"      {rest * each:6,.0f}  (others)")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for path in sys.argv[2:]:
        show(sys.argv[1], path)
