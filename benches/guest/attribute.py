#!/usr/bin/python3
"""Instructions per packet by function, or by source line, of profiles that compare.py has taken. The program is the xlvs that
was measured; what the compiler has put into other functions is found by its debugging information, and what a library's
function does there is the xlvs function's that uses it."""

import argparse
import collections
import json
import pathlib
import re
import subprocess

LEAST = 8  # instructions; what has fewer is added up


def code_shift(program):
    """By how much the code's addresses are above its places in the file, which perf gives."""
    headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True).stdout
    offset, address = re.search(r"LOAD +(0x\w+) (0x\w+) .* R E ", headers).groups()
    return int(address, 16) - int(offset, 16)


def is_ours(place):
    return "/src/" in place and "/.cargo/" not in place and "/rustc/" not in place


def resolve(program, places, by):
    """The xlvs function (or line, or file) at each place of the file, or the outermost one if there is none."""
    shift = code_shift(program)
    text = "\n".join(f"{place + shift:#x}" for place in places)
    out = subprocess.run(["addr2line", "-afiC", "-e", program], input=text, capture_output=True, text=True).stdout
    functions = {}
    for block in re.split(r"^(?=0x)", out, flags=re.M)[1:]:
        address, *frames = block.strip().split("\n")
        frames = list(zip(frames[0::2], frames[1::2]))
        name, where = next((frame for frame in frames if is_ours(frame[1])), frames[-1])
        file, _, line = where.split(" ")[0].split("/src/")[-1].rpartition(":")
        named = {"function": f"{file} {last_part(name)}", "line": f"{file}:{line}", "file": file}
        functions[int(address, 16) - shift] = named[by]
    return functions


def last_part(name):
    """Of a path, without the types that a function is instantiated with."""
    return re.sub(r"::h[0-9a-f]{16}$|<.*>$", "", name).rpartition("::")[2] or name


def split(frame):
    """Place in the file, function and file of a line of perf's."""
    place, rest = frame.split(" ", 1)
    function, _, file = rest.rpartition(" (")
    return int(place, 16), function, pathlib.Path(file.rstrip(")")).name


def functions(program, profile, by):
    """Yields (thread, cause, function, samples)."""
    own = pathlib.Path(program).name
    parsed = [(thread, cause, *split(frame), count) for thread, cause, frame, count in profile["samples"]]
    names = resolve(program, sorted({place for _, _, place, _, file, _ in parsed if file == own}), by)
    for thread, cause, place, function, file, count in parsed:
        yield thread, cause, names.get(place, function) if file == own else function, count


def show(program, path, by):
    profile = json.loads(pathlib.Path(path).read_text())
    print(f"\n{path}")
    by_thread = collections.defaultdict(collections.Counter)
    for thread, cause, function, count in functions(program, profile, by):
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", choices=("function", "line", "file"), default="function", help="default: function")
    parser.add_argument("program")
    parser.add_argument("profiles", nargs="+", metavar="profile")
    options = parser.parse_args()
    for path in options.profiles:
        show(options.program, path, options.by)
