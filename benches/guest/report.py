"""The table, as text and for programs."""

import json
import os
import pathlib
import statistics

# The project's aims: times IPVS, and instructions.
AIMS = {"xlvs": (0.75, None), "xlvs-shortcut": (0.2, 1000)}
REFERENCE = "ipvs"


def row(router, results, options):
    middle = statistics.median_low([result["router"] for result in results])
    result = next(result for result in results if result["router"] == middle)
    sent = options.packets * len(results)
    delivered = sum(result["delivered"] for result in results)
    return {
        "name": router.name,
        "description": router.description,
        "instructions": round(middle),
        "measured": [round(result["router"]) for result in results],
        "lost": sent - delivered,
        "sent": sent,
        "threads": {name: round(cost) for name, cost in sorted(result["cost"].items()) if cost >= 1},
    }


def missing(router, reason):
    return {"name": router.name, "description": router.description, "missing": reason}


def ratio(row, rows):
    """To IPVS; None before that was measured."""
    reference = next((other for other in rows if other["name"] == REFERENCE and "missing" not in other), None)
    return row["instructions"] / reference["instructions"] if reference and "missing" not in row else None


def aim(row, rows):
    """What the project aims at, and whether it is there."""
    times, most = AIMS.get(row["name"], (None, None))
    found = ratio(row, rows)
    if times is None or found is None:
        return ""
    met = found <= times and (most is None or row["instructions"] < most)
    return f"≤ {times} ×" + (f", < {most:,}" if most else "") + (" ✓" if met else " ✗")


def line(row, rows):
    if "missing" in row:
        return f"{row['name']:15} {row['missing']}"
    found = ratio(row, rows)
    times = f"{found:6.3f} × {REFERENCE}" if found else ""
    threads = " ".join(f"{name} {cost:,}" for name, cost in row["threads"].items())
    return f"{row['name']:15} {row['instructions']:6,} {times:13} lost {row['lost']} of {row['sent']}  {aim(row, rows):18} [{threads}]"


def table(rows):
    yield "| row | what it is | instructions a packet | × IPVS | aim | lost |"
    yield "|---|---|---:|---:|---|---:|"
    for row in rows:
        if "missing" in row:
            yield f"| {row['name']} | {row['description']} | {row['missing']} | | | |"
            continue
        found = ratio(row, rows)
        times = f"{found:.3f}" if found else ""
        yield (f"| {row['name']} | {row['description']} | {row['instructions']:,} | {times} | {aim(row, rows)} |"
               f" {row['lost']} of {row['sent']} |")


def heading(options):
    return (f"Kernel {os.uname().release} in a guest that counts instructions: UDP packets of 60 bytes of {options.flows:,} flows,"
            f" one way, {options.packets:,} a measurement.")


def write(rows, options):
    out = pathlib.Path(options.out)
    text = "\n".join(["# Instructions beside kernel IPVS", "", heading(options), "", *table(rows), ""])
    (out / "guest.md").write_text(text)
    whole = {"kernel": os.uname().release, "packets": options.packets, "flows": options.flows, "rows": rows}
    (out / "guest.json").write_text(json.dumps(whole, indent=2) + "\n")
