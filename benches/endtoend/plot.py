"""The plot, an SVG by gnuplot: medians as bars, the least and the greatest as whiskers."""

import subprocess
from statistics import median

from commands import RigError
from report import added

PANELS = [
    ("CPU a packet in a flood, ns", "cost", 1, None),
    ("packets delivered in a flood, Mpps", "delivered", 1e6, None),
    ("packets without loss, Mpps", "loss_free", 1e6, None),
    ("added p99 of a packet at 80 %, µs", "latency_80_p99", 1e3, "latency"),
    ("new connections a second, thousands", "connections", 1e3, None),
    ("requests a second, thousands", "requests", 1e3, None),
    ("bulk, Gbit/s", "bulk", 1e9, None),
    ("added p99 of an answer at 80 %, µs", "answer_80_p99", 1e3, "answer"),
]
HEAD = """\
set terminal svg noenhanced size 1500,760 font 'sans,12' background 'white'
set output '{output}'
set style fill solid 0.85 noborder
set boxwidth 0.7
set errorbars 1 lc rgb 'black' lw 1.5
set grid ytics
set yrange [0:*]
set xtics rotate by -35 scale 0 font ',11'
set lmargin 8
set rmargin 4
set bmargin 4
unset key
set multiplot layout 2,4 title "{title}"
"""
COLOURS = {"xlvs": 0x1F6F8B, "shortcut": 0x2A9D8F}
OTHERS = 0xB8B8B8


def panel(results, shorts, index, about):
    """One chart, or nothing where nothing was measured."""
    title, key, unit, kind = about
    source = added(results, kind) if kind else results
    rows = []
    for name in source.labels:
        values = source.values(name, key)
        if values and name != "cable":
            middle, least, most = (value / unit for value in (median(values), min(values), max(values)))
            rows.append(f'{len(rows)} {middle} {least} {most} {COLOURS.get(name, OTHERS)} "{shorts[name]}"')
    if not rows:
        return ""
    data = f"$data{index} << EOD\n" + "\n".join(rows) + "\nEOD\n"
    return (
        f'{data}set title "{title}"\nplot [-0.6:{len(rows) - 0.4}] $data{index} using 1:2:3:4:(0.7):5:xtic(6) '
        "with boxerrorbars lc rgb variable\n"
    )


def draw(results, shorts, machine, output):
    """Writes the SVG."""
    title = f"{machine['kernel']}, {machine['processor']}, {machine['date']}"
    script = HEAD.format(output=output, title=title) + "".join(
        panel(results, shorts, index, each) for index, each in enumerate(PANELS)
    )
    done = subprocess.run(["gnuplot"], input=script + "unset multiplot\n", capture_output=True, text=True)
    if done.returncode or not output.exists():
        raise RigError(f"gnuplot could not draw: {done.stderr.strip()}")
